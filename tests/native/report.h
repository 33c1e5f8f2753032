// Counts what was compared, and prints what differs.
#pragma once

#include <cstddef>
#include <string>

namespace report {

// Of which inputs the comparisons that follow are.
void set_case(const std::string& name);
const char* case_name();

void expect(const char* function, const char* what, bool holds);
// Returns whether all items are the same.
bool expect_same(const char* function, const char* what, const void* of_cuda, const void* of_cpu, std::size_t num_items,
                 std::size_t item_bytes);

// One failure is enough for whoever plants faults.
void stop_at_first_failure();

// Of all that the CPU backend left and that was compared, in this order.
unsigned long long digest();

// Prints a line for each function, and the total. Returns whether all was well.
bool summary();

}  // namespace report
