// One binary for every x86-64: the compiler makes the marked functions three times (baseline, AVX2, AVX-512) and the loader
// picks. GCC knows these levels from version 12 on, and the loader's part is that of glibc; other machines, compilers and C
// libraries use the one build that they have. Off under sanitizers, which cannot run resolvers.
#pragma once

#include <cstdint>  // defines __GLIBC__, where there is one

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && \
    !defined(INFOBATCH_SANITIZE)
#define IB_VERSIONS 1
#define IB_MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define IB_VERSIONS 0
#define IB_MULTIVERSION
#endif
