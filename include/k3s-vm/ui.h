/* SPDX-License-Identifier: MIT */
/*
 * What the user sees while work goes on, all of that on stderr: a line a phase with its time; on a terminal the
 * running phases are redrawn with a bar for what can be measured. NO_COLOR and TERM=dumb are honoured.
 */
#pragma once

#include <k3s-vm/err.h>
#include <k3s-vm/json.h>
#include <k3s-vm/progress.h>

/* @quiet shows warnings only; @debug shows debug lines. The UI lives as long as the program. */
struct progress *ui_new(bool quiet, bool debug);
/* Ends what is being redrawn, so that other output can follow. */
void ui_finish(struct progress *p);
/* The one place where an error is shown. */
void ui_error(const struct error *err);
/* What a command has to say with --json: the one document, to stdout. */
void ui_print_json(const struct json *j);
/* Escape sequences for stdout's or stderr's terminal, "" where colour is not wanted. */
enum ui_style { UI_PLAIN, UI_BOLD, UI_DIM, UI_GREEN, UI_YELLOW, UI_RED };
const char *ui_style(int fd, enum ui_style style);
