// The walk over all inputs, and which of them a run takes.
#pragma once

#include <cstdint>

struct Extent {
  std::int64_t smallest = 1, largest = 5000003;  // numbers of slots
  int every = 2;                                 // one in so many plans of a table is made
  std::uint64_t seed = 1;
  int threads = 1;              // most of them, for the CPU backend
  bool every_place = true;      // each table in each place of a data set, or in one
  int random_rounds = 200;      // of statistics that many ranks could have
  bool large_records = false;   // of more samples than a launch takes
  std::int64_t long_table = 0;  // slots of one more table, or 0
};

// Returns whether both backends agree on everything.
bool compare(const Extent&);
