/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/host.h>
#include <k3s-vm/ui.h>

static const char *result_name(const struct check *check) {
        switch (check->result) {
        case CHECK_OK:
                return "ok";
        case CHECK_WARNING:
                return "warning";
        case CHECK_FAILED:
                break;
        }
        return "failed";
}

/* The fix may hold several lines: each is indented. */
static void print_fix(const char *fix) {
        while (*fix) {
                size_t n = strcspn(fix, "\n");
                printf("               %.*s\n", (int)n, fix);
                fix += n + (fix[n] == '\n');
        }
}

static void print_check(const struct check *check) {
        static const struct {
                const char *mark;
                enum ui_style style;
        } looks[] = {[CHECK_OK] = {"+", UI_GREEN}, [CHECK_WARNING] = {"!", UI_YELLOW}, [CHECK_FAILED] = {"x", UI_RED}};
        printf("%s%s%s %-12s %s\n", ui_style(STDOUT_FILENO, looks[check->result].style), looks[check->result].mark,
               ui_style(STDOUT_FILENO, UI_PLAIN), check->name, check->text);
        if (check->result != CHECK_OK && check->fix)
                print_fix(check->fix);
}

static void print_json(const struct checks *checks, size_t failed) {
        _cleanup_json_ struct json *document = json_new_object();
        json_set_bool(document, "ok", failed == 0);
        struct json *array = json_set_array(document, "checks");
        for (size_t i = 0; i < checks->n; i++) {
                struct json *j = json_new_object();
                json_set_string(j, "name", checks->items[i].name);
                json_set_string(j, "result", result_name(&checks->items[i]));
                json_set_string(j, "text", checks->items[i].text);
                json_set_string(j, "fix", checks->items[i].fix);
                json_append(array, j);
        }
        ui_print_json(document);
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        (void)args;
        int r = context_config(ctx, err);
        if (r < 0)
                return r;
        struct checks checks = {0};
        r = host_check(ctx->project, ctx->config, &checks, err);
        if (r < 0)
                return r;
        size_t failed = 0, warned = 0;
        for (size_t i = 0; i < checks.n; i++) {
                failed += checks.items[i].result == CHECK_FAILED;
                warned += checks.items[i].result == CHECK_WARNING;
        }
        if (ctx->json)
                print_json(&checks, failed);
        else {
                for (size_t i = 0; i < checks.n; i++)
                        print_check(&checks.items[i]);
                if (failed == 0 && warned == 0)
                        printf("\nEverything is there.\n");
                else
                        printf("\n%zu failed, %zu to know about, %zu in order.\n", failed, warned,
                               checks.n - failed - warned);
        }
        checks_clear(&checks);
        return failed > 0 ? ERR_HOST : 0;
}

const struct command cmd_doctor = {
                .name = "doctor",
                .summary = "check this machine, with what mends each finding",
                .details = "Exits with 0 when nothing failed, else with 6.",
                .run = run,
};
