# The CUDA backend: compiled where nvcc is found, or demanded with INFOBATCH_CUDA=ON.
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(INFOBATCH_CUDA STREQUAL "ON")
    message(FATAL_ERROR "infobatch_fast: INFOBATCH_CUDA=ON, but no nvcc was found. Install the CUDA toolkit, or set CUDACXX to "
                        "its nvcc, or build for the CPU alone with INFOBATCH_CUDA=OFF.")
  endif()
  message(STATUS "infobatch_fast: no nvcc found, building the CPU backend alone")
  return()
endif()
