/* SPDX-License-Identifier: MIT */
/* Copies by SFTP. */
#include "remote_internal.h"

void remote_close_sftp(struct remote *r) {
        if (!r->sftp)
                return;
        libssh.sftp_free(r->sftp);
        r->sftp = NULL;
}
