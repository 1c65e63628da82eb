/* SPDX-License-Identifier: MIT */
/*
 * What `status` and the end of a start show: everything about one VM, gathered once and printed as text or as
 * the JSON object that README documents.
 */
#pragma once

#include <k3s-vm/command.h>
#include <k3s-vm/health.h>
#include <k3s-vm/suspend.h>
#include <k3s-vm/vm.h>

struct summary {
        const struct project *project;
        const struct config *config;
        const struct state *state; /* NULL: there is no VM */
        enum vm_status status;
        char *detail; /* why it is in that state; NULL when there is nothing to say */
        pid_t pid;    /* of QEMU; 0 when it does not run */
        uint64_t uptime_ms;
        struct suspended suspended; /* no tag: it is not, or cannot be read */
        struct json *supervisor;    /* its own answer (supervisor_ask()); NULL: there is none, or it does not answer */
        char *kubeconfig;           /* path, NULL when there is none */
        bool api_asked;
        struct health api;
        bool web_asked;           /* whether the project's page was fetched, which summary_gather() does not */
        long web_status;          /* of HTTP; 0: nothing answered */
        int64_t certificate_end;  /* seconds since 1970; 0 unknown */
        int64_t disk_used;        /* bytes allocated on the host */
        uint64_t disk_free;       /* bytes free on the host's file system */
        uint64_t memory_used_mib; /* of QEMU on the host */
};

/* How long it may take to ask the cluster's API. */
enum summary_patience {
        SUMMARY_QUICK, /* as long as nobody notices: if it does not answer in that time, its last answer and how old
                        * that is */
        SUMMARY_WAIT,  /* some seconds: what it answers now, and if it does not, that */
};

/* Asks everything; nothing of it fails: what cannot be told is left out. @s may be NULL. */
void summary_gather(const struct project *p, const struct config *c, const struct state *s,
                    enum summary_patience patience, struct summary *ret);
void summary_clear(struct summary *s);
#define _cleanup_summary_ _cleanup_(summary_clear)

/* To stdout. */
void summary_print(const struct summary *s, bool verbose);
void summary_print_json(const struct summary *s);
/* The end of a start: how to reach what, and how long each phase took. To stdout. */
void summary_print_ready(const struct summary *s);
