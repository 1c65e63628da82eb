/* SPDX-License-Identifier: MIT */
/*
 * Formats: ECMA-119 (volume descriptors 8.4, directory records 9.1, path tables 9.4), System Use Sharing Protocol
 * (CE, 5.1), Rock Ridge Interchange Protocol (PX 4.1.1, TF 4.1.6).
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "archive_iso.h"

#define SECTOR 2048U
#define FIRST_DESCRIPTOR 16U /* sectors */
#define RECORD_HEAD 33U      /* bytes of a directory record before the name */

static uint32_t get_le32(const uint8_t *p) {
        return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int get(int fd, uint64_t offset, void *data, size_t len, struct error *err) {
        ssize_t n;
        do
                n = pread(fd, data, len, (off_t)offset);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return err_errno(err, errno, "cannot read the image back");
        if ((size_t)n != len)
                return err_set(err, ERR_FAILED, EBADMSG, "the image is not what was written");
        return 0;
}

static int put(int fd, uint64_t offset, const void *data, size_t len, struct error *err) {
        ssize_t n;
        do
                n = pwrite(fd, data, len, (off_t)offset);
        while (n < 0 && errno == EINTR);
        if (n != (ssize_t)len)
                return err_errno(err, n < 0 ? errno : EIO, "cannot finish the image");
        return 0;
}

/* 1970-01-01 00:00:00 UTC in the seven bytes of 9.1.5. */
static void pin_time(uint8_t *p) {
        static const uint8_t epoch[7] = {70, 1, 1, 0, 0, 0, 0};
        memcpy(p, epoch, sizeof(epoch));
}

/* The entries of one system use area; a continuation is given back. */
static void pin_system_use(uint8_t *p, size_t len, uint32_t continuation[3]) {
        for (size_t size; len >= 4 && (size = p[2]) >= 4 && size <= len; p += size, len -= size) {
                if (memcmp(p, "TF", 2) == 0 && size >= 5 && !(p[4] & 0x80))
                        for (size_t i = 5; i + 7 <= size; i += 7)
                                pin_time(p + i);
                else if (memcmp(p, "PX", 2) == 0 && size >= 36)
                        memset(p + 20, 0, 16); /* user and group, each in both byte orders */
                else if (memcmp(p, "CE", 2) == 0 && size >= 28)
                        for (size_t i = 0; i < 3; i++)
                                continuation[i] = get_le32(p + 4 + i * 8);
        }
}

/* One directory record of @len bytes. */
static int pin_record(int fd, uint8_t *record, size_t len, struct error *err) {
        size_t name_end = RECORD_HEAD + record[32];
        name_end += name_end % 2; /* padded to an even length */
        pin_time(record + 18);
        if (name_end >= len)
                return 0;
        uint32_t next[3] = {0}; /* sector, offset, length */
        pin_system_use(record + name_end, len - name_end, next);
        /* Continuations form a chain forwards; a bound keeps even a wrong image from making it a loop. */
        for (int i = 0; next[2] > 0 && i < 64; i++) {
                uint8_t area[SECTOR];
                if (next[1] > SECTOR || next[2] > SECTOR - next[1])
                        return err_set(err, ERR_FAILED, EBADMSG, "the image is not what was written");
                uint64_t offset = (uint64_t)next[0] * SECTOR + next[1];
                size_t n = next[2];
                int r = get(fd, offset, area, n, err);
                if (r < 0)
                        return r;
                memset(next, 0, sizeof(next));
                pin_system_use(area, n, next);
                r = put(fd, offset, area, n, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* All records of the folder whose first sector is @sector. Its first record, ".", tells its length. */
static int pin_folder(int fd, uint32_t sector, struct error *err) {
        uint32_t sectors = 1;
        for (uint32_t i = 0; i < sectors; i++) {
                uint8_t block[SECTOR];
                uint64_t offset = ((uint64_t)sector + i) * SECTOR;
                int r = get(fd, offset, block, sizeof(block), err);
                if (r < 0)
                        return r;
                if (i == 0)
                        sectors = get_le32(block + 10) / SECTOR;
                for (size_t at = 0; at + RECORD_HEAD < SECTOR && block[at] > RECORD_HEAD; at += block[at]) {
                        if (block[at] > SECTOR - at)
                                return err_set(err, ERR_FAILED, EBADMSG, "the image is not what was written");
                        r = pin_record(fd, block + at, block[at], err);
                        if (r < 0)
                                return r;
                }
                r = put(fd, offset, block, sizeof(block), err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* A primary or supplementary descriptor: its own times, and every folder that its path table lists. */
static int pin_volume(int fd, uint8_t *descriptor, struct error *err) {
        static const char epoch[17] = "1970010100000000"; /* and a time zone of 0 */
        static const size_t times[] = {813, 830, 864};    /* made, modified, effective */
        for (size_t i = 0; i < ELEMENTSOF(times); i++)
                memcpy(descriptor + times[i], epoch, sizeof(epoch));
        pin_time(descriptor + 156 + 18);

        size_t len = get_le32(descriptor + 132);
        uint64_t offset = (uint64_t)get_le32(descriptor + 140) * SECTOR;
        for (size_t at = 0; at < len;) {
                uint8_t head[8];
                int r = get(fd, offset + at, head, sizeof(head), err);
                if (r == 0)
                        r = pin_folder(fd, get_le32(head + 2), err);
                if (r < 0)
                        return r;
                at += sizeof(head) + head[0] + head[0] % 2;
        }
        return 0;
}

int archive_iso_pin(int fd, struct error *err) {
        uint8_t block[SECTOR];
        uint64_t sector = FIRST_DESCRIPTOR;
        for (bool last = false; !last; sector++) {
                int r = get(fd, sector * SECTOR, block, sizeof(block), err);
                if (r < 0)
                        return r;
                if (memcmp(block + 1, "CD001", 5) != 0)
                        return err_set(err, ERR_FAILED, EBADMSG, "the image is not what was written");
                last = block[0] == 255;
                if (block[0] != 1 && block[0] != 2)
                        continue;
                r = pin_volume(fd, block, err);
                if (r == 0)
                        r = put(fd, sector * SECTOR, block, sizeof(block), err);
                if (r < 0)
                        return r;
        }
        /* The block behind the descriptors is the writer's own: version and local time as text. */
        int r = get(fd, sector * SECTOR, block, sizeof(block), err);
        if (r < 0 || memcmp(block, "INFO ", 5) != 0)
                return r;
        memset(block, 0, sizeof(block));
        return put(fd, sector * SECTOR, block, sizeof(block), err);
}
