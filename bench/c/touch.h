/* How both sides of the stop-copy benchmark use the data: the same touch, and on request the same checksum. */
#ifndef BENCH_TOUCH_H
#define BENCH_TOUCH_H

#include <stdbool.h>
#include <stddef.h>

#include "common.h"

#define CACHE_LINE 64

struct consumer {
    bool checksum;
    uint64_t bytes;
    uint64_t hash;  /* over 8-byte words of the stream, wherever its chunks are cut */
    uint64_t word;  /* the word that a chunk ended in the middle of */
    unsigned filled;
};

static inline void consumer_word(struct consumer *consumer, uint64_t word) {
    consumer->hash = (consumer->hash ^ word) * 0x100000001b3u;
    consumer->hash ^= consumer->hash >> 32;
}

static inline void consumer_hash(struct consumer *consumer, const unsigned char *data, size_t length) {
    while (length > 0 && (consumer->filled > 0 || length < sizeof(uint64_t))) {
        consumer->word |= (uint64_t)*data++ << (8 * consumer->filled);
        length--;
        if (++consumer->filled == sizeof(uint64_t)) {
            consumer_word(consumer, consumer->word);
            consumer->word = 0;
            consumer->filled = 0;
        }
    }
    for (; length >= sizeof(uint64_t); data += sizeof(uint64_t), length -= sizeof(uint64_t)) {
        uint64_t word;

        memcpy(&word, data, sizeof word);
        consumer_word(consumer, word);
    }
    if (length > 0) consumer_hash(consumer, data, length);
}

/* Reads one byte of each cache line, and every byte if a checksum is wanted. */
static inline void consume(struct consumer *consumer, const void *data, size_t length) {
    const volatile unsigned char *line = data;

    for (size_t at = 0; at < length; at += CACHE_LINE) (void)line[at];
    if (consumer->checksum) consumer_hash(consumer, data, length);
    consumer->bytes += length;
}

/* The checksum as a JSON value; `text` holds it. */
static inline const char *consumer_checksum(const struct consumer *consumer, char text[24]) {
    uint64_t hash = (consumer->hash ^ consumer->word ^ consumer->filled) * 0x100000001b3u;

    if (!consumer->checksum) return "null";
    snprintf(text, 24, "\"%016llx\"", (unsigned long long)hash);
    return text;
}

#endif
