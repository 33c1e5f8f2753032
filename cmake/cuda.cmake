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

# Which GPUs to compile for, in this order: CMAKE_CUDA_ARCHITECTURES (or CUDAARCHS, CMake's own variable for it), PyTorch's
# TORCH_CUDA_ARCH_LIST, and else native code for A100, H100, B200 and RTX 50, with PTX of the last for what comes later. It is
# settled before the language is enabled, as CMake would put its own default there.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  string(REGEX MATCHALL "[^ ;,]+" torch_architectures "$ENV{TORCH_CUDA_ARCH_LIST}")
  foreach(architecture IN LISTS torch_architectures)
    if(NOT architecture MATCHES "^([0-9]+)\\.([0-9]+)([af]?)(\\+PTX)?$")
      message(WARNING "infobatch_fast: '${architecture}' in TORCH_CUDA_ARCH_LIST is not understood and left out (expected the "
                      "like of 9.0 or 9.0+PTX)")
      continue()
    endif()
    set(number "${CMAKE_MATCH_1}${CMAKE_MATCH_2}${CMAKE_MATCH_3}")
    if(CMAKE_MATCH_4)
      list(APPEND CMAKE_CUDA_ARCHITECTURES "${number}")
    else()
      list(APPEND CMAKE_CUDA_ARCHITECTURES "${number}-real")
    endif()
  endforeach()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --version OUTPUT_VARIABLE nvcc_version)
    string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" nvcc_version "${nvcc_version}")
    if(CMAKE_MATCH_1 VERSION_LESS 12.8)  # knows no Blackwell
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
    else()
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100-real 120)
    endif()
  endif()
endif()

enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
  message(FATAL_ERROR "infobatch_fast: CUDA 12.0 or newer is needed, this is ${CMAKE_CUDA_COMPILER_VERSION}. Name another nvcc "
                      "in CUDACXX, or build for the CPU alone with INFOBATCH_CUDA=OFF.")
endif()
message(STATUS "infobatch_fast: CUDA ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")

option(INFOBATCH_PTXAS_VERBOSE "Print registers, spills and shared memory of each kernel" OFF)

target_sources(_core PRIVATE
  csrc/cuda/device.cu csrc/cuda/statistics.cu csrc/cuda/histogram.cu csrc/cuda/importance.cu csrc/cuda/plan.cu
  csrc/cuda/record.cu csrc/cuda/order.cu)
# The runtime is linked in: the module loads without CUDA, and beside whichever runtime torch brings.
set_target_properties(_core PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}" CUDA_RUNTIME_LIBRARY Static
  CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF)
list(JOIN CMAKE_CUDA_ARCHITECTURES " " architectures)
target_compile_definitions(_core PRIVATE INFOBATCH_WITH_CUDA INFOBATCH_CUDA_ARCHITECTURES="${architectures}"
  INFOBATCH_CUDA_TOOLKIT="${CMAKE_CUDA_COMPILER_VERSION}")
# No contraction and no fast-math in anything that decides, as on the CPU.
target_compile_options(_core PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo --fmad=false -Xcompiler=-Wall,-Wextra>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${INFOBATCH_PTXAS_VERBOSE}>>:-Xptxas=-v>)
