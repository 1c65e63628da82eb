/* SPDX-License-Identifier: MIT */
/*
 * The page of the project: which NodePort WEB_PORT leads to, where WEB_NODE_PORT does not say so by number.
 *
 * It is that of the Service whose annotation says so, or of the only NodePort that the manifests have. It is found
 * after an apply, since a NodePort that the manifest leaves open is known to the cluster only; the running VM's forward
 * is moved, and the number is kept beside the VM's disk, from where config_load() has it for the next starts.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/kube.h>
#include <k3s-vm/manifest.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/state.h>

/* On a Service: "true" for its first NodePort, or the name or number of one of its ports. */
#define WEB_SERVICE_ANNOTATION "k3s-vm/web"

/* A NodePort of the manifests. */
struct node_port {
        const struct manifest *service;
        uint64_t port;      /* of the Service */
        uint64_t node_port; /* 0: the manifest leaves it to the cluster */
        bool is_web;        /* by the annotation */
};

/* For the one below, and tests: all TCP NodePorts; the caller frees. Their number. */
size_t web_service_ports(const struct manifests *m, struct node_port **ret);
/* Which of them WEB_PORT leads to; NULL: none, or it cannot be told. */
const struct node_port *web_service_choose(const struct node_port *ports, size_t n, uint16_t node_port);

/* After an apply of @m: leads WEB_PORT to the project's page, where these are @whole_project, and names the command
 * that forwards a NodePort that is not reached from here. @c has the new WEB_NODE_PORT then. */
int web_service_follow(const struct project *p, struct config *c, const struct state *s, const struct kubeconfig *k,
                       const struct manifests *m, bool whole_project, struct progress *progress, struct error *err);

/* The number that was kept; 0: none. */
uint16_t web_service_kept(const struct project *p);

/* Fetches the page at the port of this host: the status of HTTP, 0 when nothing answered. @timeout_ms: how long that is
 * tried again; 0: once. */
long web_service_fetch(uint16_t port, unsigned timeout_ms);
