/* SPDX-License-Identifier: MIT */
/*
 * What the values of the configuration may be. Each check takes the text of one value, blanks around it gone,
 * and gives the value for struct config, or an ERR_USAGE whose message says what is allowed and what was there.
 */
#pragma once

#include <k3s-vm/config.h>

int config_check_number(const char *text, unsigned min, unsigned max, const char *unit, unsigned *ret,
                        struct error *err);
int config_check_port(const char *text, uint16_t *ret, struct error *err);
int config_check_forward(const char *text, struct forward *ret, struct error *err);
int config_check_forwards(const char *text, struct forward **ret, size_t *ret_n, struct error *err);

/* For values that are text; the caller frees @ret. @p says what a relative path is relative to. */
typedef int config_check_fn(const struct project *p, const char *text, char **ret, struct error *err);
config_check_fn config_check_name, config_check_flavor, config_check_k3s_version, config_check_words, config_check_path,
                config_check_accel, config_check_switch, config_check_output_path, config_check_dns, config_check_https,
                config_check_mirror, config_check_mirrors, config_check_image;

/* The folder's name made into a DNS label: "k3s-vm-my-shop"; the caller frees. */
char *config_default_name(const char *root);
