/* SPDX-License-Identifier: MIT */
/*
 * Libraries that are loaded when first needed. libcurl, libssh, libarchive and libcrypto bring forty
 * further libraries with them: linking them in would cost every call of the program 13 ms and the
 * supervisor a megabyte. The one module that includes a library's header lists the functions it
 * uses and gets them through here; types and prototypes stay the header's.
 */
#pragma once

#include <stddef.h>

#include <k3s-vm/err.h>

struct library_symbol {
        const char *name;
        void **address; /* filled in */
};

/* Opens @soname once and fills in all of @symbols. @handle is the caller's static variable, NULL
 * before the first call. A missing library is ERR_HOST and names @soname. */
int library_load(void **handle, const char *soname, const struct library_symbol *symbols, size_t n, struct error *err);

/*
 * #define SYMBOLS(X) X(curl_easy_init) X(curl_easy_perform)
 * LIBRARY_DECLARE(curl, SYMBOLS);             declares `static struct {...} curl;`
 * int r = LIBRARY_LOAD(curl, "libcurl.so.4", SYMBOLS, err);
 * curl.curl_easy_init();
 *
 * A module of several files has LIBRARY_EXTERN(curl, SYMBOLS) in its own header instead, and
 * `struct curl_library curl;` in the file that loads it.
 */
#define LIBRARY_MEMBER_(function) __typeof__(&function) function;
#define LIBRARY_SYMBOL_(function) {#function, (void **)&library_table_->function},
#define LIBRARY_TYPE_(variable, list) \
        struct variable##_library { \
                void *handle_; \
                list(LIBRARY_MEMBER_) \
        }
#define LIBRARY_DECLARE(variable, list) static LIBRARY_TYPE_(variable, list) variable
#define LIBRARY_EXTERN(variable, list) extern LIBRARY_TYPE_(variable, list) variable
#define LIBRARY_LOAD(variable, soname, list, err) \
        ({ \
                struct variable##_library *library_table_ = &(variable); \
                const struct library_symbol library_symbols_[] = {list(LIBRARY_SYMBOL_)}; \
                library_load(&library_table_->handle_, soname, library_symbols_, ELEMENTSOF(library_symbols_), err); \
        })
