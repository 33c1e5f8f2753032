// Times of the CUDA backend's functions.
#pragma once

// Prints a line of JSON for each function and size: up to 1e9 slots as far as memory allows, or up to 1e8 for a quick look.
void measure_speed(bool quick);
