// Every return code of the CUDA runtime is looked at: the first bad one ends the program.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#include "report.h"

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("CUDA ERROR in %s: %s [%s]\n", what, cudaGetErrorString(error), report::case_name());
  std::fflush(stdout);
  std::_Exit(2);  // the context is lost: nothing can be given back
}
#define CHECKED(call) check_cuda(call, #call)
