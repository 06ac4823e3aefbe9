/* A plain loop that reads memory: what it takes is the least that reading a product's weights takes. */
#ifndef MODELFLEX_READ_LOOP_H
#define MODELFLEX_READ_LOOP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The sum of `count` words, modulo 2^64. */
uint64_t mf_read_loop(const uint64_t *words, size_t count);

#ifdef __cplusplus
}
#endif

#endif
