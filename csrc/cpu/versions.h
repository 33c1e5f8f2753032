// One binary for every x86-64: the compiler makes the marked functions three times (baseline, AVX2, AVX-512) and the loader
// picks. Other machines and compilers use the one build that they have. Off under sanitizers, which cannot run resolvers.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(INFOBATCH_SANITIZE)
#define IB_VERSIONS 1
#define IB_MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define IB_VERSIONS 0
#define IB_MULTIVERSION
#endif
