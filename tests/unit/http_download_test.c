/* SPDX-License-Identifier: MIT */
/* Downloads. Requests are in http_test.c. */
#include "https_server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/verified.h>

#define DATA_LEN 3000000U

struct scene {
        struct http *http;
        char *dir, *path, *part, *from;
        char good[65]; /* SHA-256 of /data */
};

static int scene_setup(void **state) {
        struct scene *s = xcalloc(1, sizeof(*s));
        *state = s;
        if (fs_mkdtemp("/tmp", "k3s-vm-test", &s->dir, NULL) < 0 || http_new(NULL, &s->http, NULL) < 0)
                return -1;
        s->path = path_join(s->dir, "file");
        s->part = path_join(s->dir, "file.part");
        s->from = path_join(s->dir, "file.part.from");
        char *data = xcalloc(1, DATA_LEN);
        for (size_t i = 0; i < DATA_LEN; i++)
                data[i] = (char)(i * 7 % 251);
        int r = digest_bytes(data, DATA_LEN, s->good, NULL);
        free(data);
        return r;
}

static int scene_teardown(void **state) {
        struct scene *s = *state;
        http_free(s->http);
        int r = fs_remove_tree(s->dir, NULL);
        free(s->dir);
        free(s->path);
        free(s->part);
        free(s->from);
        free(s);
        return r;
}

static struct scene *scene(void **state) {
        needs_server();
        return *state;
}

static size_t entries(const char *path) {
        _cleanup_closedir_ DIR *dir = opendir(path);
        size_t n = 0;
        for (struct dirent *e; (e = readdir(dir));)
                n += e->d_name[0] != '.';
        return n;
}

static unsigned requests(const char *path) {
        _cleanup_free_ char *question = path_join("/count", path), *text = https_server_ask(server, question);
        return (unsigned)strtoul(text, NULL, 10);
}

static int download(struct scene *s, const char *path, const char *hash, struct error *err) {
        _cleanup_free_ char *url = url_of(server->good, path);
        const struct http_download d = {.url = url,
                                        .path = s->path,
                                        .hash = hash,
                                        .mode = 0640,
                                        .stall_timeout_ms = 2000,
                                        .pause_ms = 20};
        return http_download(s->http, &d, err);
}

static void assert_whole(struct scene *s) {
        char hex[SHA256_HEX_LEN + 1];
        assert_int_equal(digest_file(s->path, hex, NULL), 0);
        assert_string_equal(hex, s->good);
        struct stat st;
        assert_int_equal(stat(s->path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0640);
        assert_int_equal(entries(s->dir), 1); /* no partial file, nothing beside it */
}

static void download_ok(struct scene *s, const char *path) {
        struct error err = ERROR_INIT;
        if (download(s, path, s->good, &err) < 0)
                fail_msg("%s: %s", path, err.message);
        assert_whole(s);
}

static void a_file_arrives_whole(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/data/whole");
        /* Again: it is there, so nothing is asked for. */
        download_ok(s, "/data/whole");
        assert_int_equal(requests("data/whole"), 1);
}

static void a_file_without_a_known_hash_or_length_arrives(void **state) {
        struct scene *s = scene(state);
        assert_int_equal(download(s, "/nolength", NULL, NULL), 0);
        assert_whole(s);
        assert_int_equal(download(s, "/empty", NULL, NULL), 0);
        assert_int_equal(fs_size(s->path), 0);
        assert_int_equal(entries(s->dir), 1);
}

static void a_download_that_is_cut_off_goes_on_where_it_was(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/cut/a");
        _cleanup_free_ char *log = https_server_ask(server, "/log/cut/a");
        assert_string_equal(log, "- -\nbytes=700000- \"v1\"\nbytes=1400000- \"v1\"\n");
}

static void another_run_goes_on_too(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *url = url_of(server->good, "/cut/b");
        struct http_download d = {.url = url, .path = s->path, .hash = s->good, .mode = 0640, .attempts = 1};
        assert_int_equal(http_download(s->http, &d, NULL), -ECONNRESET);
        assert_false(fs_exists(s->path));
        assert_int_equal(fs_size(s->part), 700000);
        http_free(s->http);
        assert_int_equal(http_new(NULL, &s->http, NULL), 0);
        download_ok(s, "/cut/b");
        _cleanup_free_ char *log = https_server_ask(server, "/log/cut/b");
        assert_string_equal(log, "- -\nbytes=700000- \"v1\"\nbytes=1400000- \"v1\"\n");
}

static void a_partial_file_of_another_url_is_not_continued(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *url = url_of(server->good, "/cut-always");
        struct http_download d = {.url = url, .path = s->path, .attempts = 1};
        assert_int_equal(http_download(s->http, &d, NULL), -ECONNRESET);
        assert_int_equal(fs_size(s->part), 1000);
        download_ok(s, "/data/other-url");
        _cleanup_free_ char *log = https_server_ask(server, "/log/data/other-url");
        assert_string_equal(log, "- -\n");
}

static void without_a_validator_it_starts_anew(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/noetag/a");
        _cleanup_free_ char *log = https_server_ask(server, "/log/noetag/a");
        assert_string_equal(log, "- -\n- -\n");
}

static void without_range_support_it_starts_anew(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/norange/a");
}

static void a_file_that_changed_meanwhile_is_fetched_anew(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/changed/a");
        assert_int_equal(unlink(s->path), 0);
        download_ok(s, "/liar/a");
        assert_int_equal(unlink(s->path), 0);
        download_ok(s, "/mixed/a");
}

static void a_partial_file_that_was_tampered_with_does_no_harm(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *origin = xasprintf("https://127.0.0.1:%u/data/t\n\"v1\"\n\n0\n", server->good);
        assert_int_equal(fs_write_atomic(s->part, "wrong beginning", 15, 0600, NULL), 0);
        assert_int_equal(fs_write_atomic(s->from, origin, strlen(origin), 0600, NULL), 0);
        download_ok(s, "/data/t");
        assert_int_equal(requests("data/t"), 2);
}

static void a_partial_file_that_is_whole_is_taken(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/data/killed");
        assert_int_equal(rename(s->path, s->part), 0);
        download_ok(s, "/data/killed");
        assert_int_equal(requests("data/killed"), 1);
}

static void a_partial_file_that_is_too_long_is_dropped(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *origin = xasprintf("https://127.0.0.1:%u/data/long\n\"v1\"\n\n0\n", server->good);
        _cleanup_free_ char *junk = xcalloc(1, DATA_LEN + 10);
        assert_int_equal(fs_write_atomic(s->part, junk, DATA_LEN + 10, 0600, NULL), 0);
        assert_int_equal(fs_write_atomic(s->from, origin, strlen(origin), 0600, NULL), 0);
        download_ok(s, "/data/long");
}

static void a_wrong_hash_removes_everything(void **state) {
        struct scene *s = scene(state);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(download(s, "/wrong/a", s->good, &err), -EBADMSG);
        assert_non_null(strstr(err.message, s->good));
        assert_int_equal(entries(s->dir), 0);
        assert_int_equal(requests("wrong/a"), 1);
}

static void a_wrong_file_in_place_stays_until_the_right_one_is_whole(void **state) {
        struct scene *s = scene(state);
        assert_int_equal(fs_write_atomic(s->path, "old", 3, 0640, NULL), 0);
        assert_int_equal(download(s, "/wrong/b", s->good, NULL), -EBADMSG);
        assert_int_equal(fs_size(s->path), 3);
        download_ok(s, "/data/replace");
}

static void a_stall_is_noticed_and_passes(void **state) {
        struct scene *s = scene(state);
        uint64_t before = now_ms();
        download_ok(s, "/stall/a");
        assert_in_range(now_ms() - before, 1500, 12000);
        verified_remove(s->path, NULL);
        download_ok(s, "/stall-first/a");
        verified_remove(s->path, NULL);
        /* Slow is no stall: this takes longer than the limit. */
        _cleanup_free_ char *url = url_of(server->good, "/slow/not-stalled");
        const struct http_download d = {.url = url,
                                        .path = s->path,
                                        .hash = s->good,
                                        .mode = 0640,
                                        .stall_timeout_ms = 1000,
                                        .attempts = 1};
        assert_int_equal(http_download(s->http, &d, NULL), 0);
        assert_whole(s);
}

static void what_can_pass_is_tried_again_and_what_cannot_is_not(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/flaky/a");
        assert_int_equal(requests("flaky/a"), 3);
        assert_int_equal(unlink(s->path), 0);
        assert_int_equal(download(s, "/gone", s->good, NULL), -ENOENT);
        assert_int_equal(requests("gone"), 1);
        assert_int_equal(download(s, "/forbidden", s->good, NULL), -EACCES);
        assert_int_equal(requests("forbidden"), 1);
        _cleanup_free_ char *url = url_of(server->good, "/error/d");
        assert_int_equal(http_download(s->http,
                                       &(struct http_download){
                                                       .url = url, .path = s->path, .attempts = 2, .pause_ms = 20},
                                       NULL),
                         -EAGAIN);
        assert_int_equal(requests("error/d"), 2);
        _cleanup_free_ char *wrong = url_of(server->wronghost, "/data");
        assert_int_equal(http_download(s->http, &(struct http_download){.url = wrong, .path = s->path}, NULL), -EPROTO);
        url[strlen("https://127.0.0.1:")] = '\0';
        _cleanup_free_ char *expired = url_of(server->expired, "/data"), *nowhere = xasprintf("%s1/data", url);
        assert_int_equal(http_download(s->http, &(struct http_download){.url = expired, .path = s->path}, NULL),
                         -EPROTO);
        const struct http_download refused = {.url = nowhere, .path = s->path, .attempts = 2, .pause_ms = 20};
        assert_int_equal(http_download(s->http, &refused, NULL), -ECONNREFUSED);
        assert_false(fs_exists(s->path));
}

static void a_server_in_trouble_is_given_time(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/five/a");
        assert_int_equal(requests("five/a"), 6);
        verified_remove(s->path, NULL);
        uint64_t before = now_ms();
        download_ok(s, "/busy/1/a");
        assert_in_range(now_ms() - before, 900, 10000);
        verified_remove(s->path, NULL);
        /* Nobody waits an hour. */
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(download(s, "/busy/3600/a", s->good, &err), -EAGAIN);
        assert_non_null(strstr(err.hint, "3600 s"));
        assert_int_equal(requests("busy/3600/a"), 1);
}

static void a_wrong_range_or_length_is_found_out(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/wrong-range/a");
        assert_int_equal(requests("wrong-range/a"), 3);
        verified_remove(s->path, NULL);
        assert_int_equal(download(s, "/too-short/a", s->good, NULL), -EBADMSG);
        assert_true(download(s, "/too-long/a", s->good, NULL) < 0);
        assert_false(fs_exists(s->path));
}

static void a_file_that_never_stays_the_same_is_given_up(void **state) {
        struct scene *s = scene(state);
        assert_int_equal(download(s, "/back-and-forth/a", s->good, NULL), -ECONNRESET);
        assert_in_range(requests("back-and-forth/a"), 6, 8);
}

static void an_encoding_that_nobody_asked_for_is_refused(void **state) {
        struct scene *s = scene(state);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(download(s, "/gzip/a", NULL, &err), -EPROTO);
        assert_non_null(strstr(err.message, "compressed"));
        assert_false(fs_exists(s->path));
        assert_int_equal(fs_size(s->part), 0);
}

static void a_host_that_does_not_exist_is_no_network(void **state) {
        struct scene *s = scene(state);
        /* Too long for a label of a name, so that no resolver is asked. */
        const struct http_download d = {
                        .url = "https://"
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.invalid/x",
                        .path = s->path};
        uint64_t before = now_ms();
        assert_int_equal(http_download(s->http, &d, NULL), -ENETUNREACH);
        assert_true(now_ms() - before < 15000);
}

static void redirects_lead_to_the_file_but_never_to_plain_http(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/redirect/cut/r"); /* cut off, too: continued through the redirect */
        assert_int_equal(unlink(s->path), 0);
        assert_int_equal(download(s, "/loop", s->good, NULL), -ELOOP);
        assert_int_equal(download(s, "/to-http", s->good, NULL), -EPROTO);
        assert_false(fs_exists(s->path));
}

static void a_proxy_from_the_environment_is_used_but_not_for_this_machine(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *proxy = xasprintf("http://127.0.0.1:%u", server->plain);
        _cleanup_free_ char *url = xasprintf("https://localhost:%u/data/proxied", server->good);
        unsetenv("no_proxy");
        unsetenv("NO_PROXY");
        setenv("https_proxy", proxy, 1);
        const struct http_download d = {.url = url, .path = s->path, .hash = s->good, .mode = 0640, .attempts = 1};
        int r = http_download(s->http, &d, NULL);
        unsigned proxied = requests("proxied");
        assert_int_equal(unlink(s->path), 0);
        download_ok(s, "/data/not-proxied");
        unsetenv("https_proxy");
        assert_int_equal(r, 0);
        assert_int_equal(proxied, 1);
        assert_int_equal(requests("proxied"), 1);
}

static void room_is_checked_before_the_download(void **state) {
        struct scene *s = scene(state);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(download(s, "/huge", NULL, &err), -ENOSPC);
        assert_int_equal(err.code, ERR_HOST);
        assert_int_equal(requests("huge"), 1);
        assert_false(fs_exists(s->path));
        assert_int_equal(fs_size(s->part), 0);
}

static void a_disk_that_fills_up_is_an_error_and_no_file(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *url = url_of(server->good, "/data/full");
        pid_t pid = fork();
        if (pid == 0) {
                struct http *h = NULL;
                signal(SIGXFSZ, SIG_IGN);
                setrlimit(RLIMIT_FSIZE, &(struct rlimit){500000, 500000});
                http_new(NULL, &h, NULL);
                _exit(-http_download(h, &(struct http_download){.url = url, .path = s->path}, NULL));
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(WEXITSTATUS(status), EFBIG);
        assert_false(fs_exists(s->path));
}

static void two_programs_fetch_a_file_once(void **state) {
        struct scene *s = scene(state);
        pid_t pids[4];
        for (size_t i = 0; i < ELEMENTSOF(pids); i++) {
                pids[i] = fork();
                if (pids[i] != 0)
                        continue;
                struct scene own = *s;
                own.http = NULL;
                http_new(NULL, &own.http, NULL);
                /* Half of them do not know the hash. */
                _exit(-download(&own, "/slow/a", i % 2 ? s->good : NULL, NULL));
        }
        for (size_t i = 0; i < ELEMENTSOF(pids); i++) {
                int status = 0;
                assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
                assert_int_equal(WEXITSTATUS(status), 0);
        }
        assert_whole(s);
        assert_int_equal(requests("slow/a"), 1);
}

static void who_waits_takes_over_from_one_that_was_killed(void **state) {
        struct scene *s = scene(state);
        pid_t pid = fork();
        if (pid == 0) {
                struct scene own = *s;
                own.http = NULL;
                http_new(NULL, &own.http, NULL);
                _exit(-download(&own, "/slow/b", s->good, NULL));
        }
        uint64_t deadline = now_ms() + 10000;
        while (fs_size(s->part) < 100000 && now_ms() < deadline)
                nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        assert_true(fs_size(s->part) >= 100000);
        download_ok(s, "/slow/b");
        _cleanup_free_ char *log = https_server_ask(server, "/log/slow/b");
        assert_non_null(strstr(log, "\nbytes="));
}

static void killed_at_thirty_moments_it_is_whole_in_the_end(void **state) {
        struct scene *s = scene(state);
        unsigned seed = (unsigned)now_ms(), runs = 0;
        print_message("seed %u\n", seed);
        for (bool done = false; !done; runs++) {
                pid_t pid = fork();
                if (pid == 0) {
                        struct scene own = *s;
                        own.http = NULL;
                        http_new(NULL, &own.http, NULL);
                        _exit(-download(&own, "/slow/killed", s->good, NULL));
                }
                if (runs < 30) {
                        nanosleep(&(struct timespec){.tv_nsec = rand_r(&seed) % 90 * 1000000L}, NULL);
                        kill(pid, SIGKILL);
                }
                int status = 0;
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
                done = runs >= 30;
        }
        assert_whole(s);
        /* It went on each time: no byte was asked for twice but those that were on their way. */
        _cleanup_free_ char *log = https_server_ask(server, "/log/slow/killed");
        const char *last = strrchr(log, '=');
        assert_true(last == NULL || strtoul(last + 1, NULL, 10) > 100000);
}

static void a_bit_that_flips_in_the_cache_is_found(void **state) {
        struct scene *s = scene(state);
        download_ok(s, "/data/flip");
        struct stat st;
        assert_int_equal(stat(s->path, &st), 0);
        _cleanup_close_ int fd = open(s->path, O_RDWR);
        char byte;
        assert_int_equal(pread(fd, &byte, 1, 1234567), 1);
        byte ^= 4;
        assert_int_equal(pwrite(fd, &byte, 1, 1234567), 1);
        download_ok(s, "/data/flip");
        assert_int_equal(requests("data/flip"), 2);
        /* Where its time was put back only reading it tells. */
        close(TAKE_FD(fd));
        fd = open(s->path, O_RDWR);
        assert_int_equal(stat(s->path, &st), 0);
        assert_int_equal(pwrite(fd, &byte, 1, 1234568), 1);
        const struct timespec again[2] = {st.st_atim, st.st_mtim};
        assert_int_equal(futimens(fd, again), 0);
        assert_int_equal(verified_check(s->path, s->good, false, NULL), 1);
        assert_int_equal(verified_check(s->path, s->good, true, NULL), 0);
}

static void an_interruption_ends_it_and_keeps_what_came(void **state) {
        struct scene *s = scene(state);
        pid_t pid = fork();
        if (pid == 0) {
                struct scene own = *s;
                own.http = NULL;
                interrupt_begin(NULL);
                http_new(NULL, &own.http, NULL);
                struct error err = ERROR_INIT;
                int r = download(&own, "/slow/c", s->good, &err);
                _exit(r == -ECANCELED && err.code == ERR_INTERRUPTED ? 0 : 1);
        }
        uint64_t deadline = now_ms() + 10000;
        while (fs_size(s->part) < 100000 && now_ms() < deadline)
                nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        kill(pid, SIGINT);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_in_range(fs_size(s->part), 100000, DATA_LEN - 1);
        assert_false(fs_exists(s->path));
}

/* Progress. */

struct watch {
        struct progress progress;
        uint64_t last, total;
        unsigned updates;
        bool backwards;
};

static struct watch watch;

static void on_update(_unused_ struct progress_phase *phase, _unused_ const char *text, uint64_t done, uint64_t total,
                      _unused_ const char *unit) {
        watch.updates++;
        watch.backwards |= done < watch.last;
        watch.last = done;
        watch.total = total;
}

static void on_debug(_unused_ struct progress *p, _unused_ const char *text) {
}

static void progress_counts_bytes_across_attempts(void **state) {
        struct scene *s = scene(state);
        static const struct progress_ops ops = {.update = on_update, .debug = on_debug};
        watch = (struct watch){.progress.ops = &ops};
        _cleanup_free_ char *url = url_of(server->good, "/cut/progress");
        const struct http_download d = {.url = url,
                                        .path = s->path,
                                        .progress = &watch.progress,
                                        .phase = (struct progress_phase *)&watch};
        assert_int_equal(http_download(s->http, &d, NULL), 0);
        assert_int_equal(watch.last, DATA_LEN);
        assert_int_equal(watch.total, DATA_LEN);
        assert_false(watch.backwards);
        assert_in_range(watch.updates, 1, 200);
}

static void who_waits_shows_how_far_the_other_is(void **state) {
        struct scene *s = scene(state);
        pid_t pid = fork();
        if (pid == 0) {
                struct scene own = *s;
                own.http = NULL;
                http_new(NULL, &own.http, NULL);
                _exit(-download(&own, "/slow/shown", s->good, NULL));
        }
        uint64_t deadline = now_ms() + 10000;
        while (fs_size(s->part) < 100000 && now_ms() < deadline)
                nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        static const struct progress_ops ops = {.update = on_update, .debug = on_debug};
        watch = (struct watch){.progress.ops = &ops};
        _cleanup_free_ char *url = url_of(server->good, "/slow/shown");
        const struct http_download d = {.url = url,
                                        .path = s->path,
                                        .hash = s->good,
                                        .progress = &watch.progress,
                                        .phase = (struct progress_phase *)&watch};
        assert_int_equal(http_download(s->http, &d, NULL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(watch.total, DATA_LEN);
        assert_true(watch.last >= 100000 && watch.updates >= 2 && !watch.backwards);
        assert_int_equal(requests("slow/shown"), 1);
}

int main(void) {
#define scene_test(f) cmocka_unit_test_setup_teardown(f, scene_setup, scene_teardown)
        const struct CMUnitTest tests[] = {
                        scene_test(a_file_arrives_whole),
                        scene_test(a_file_without_a_known_hash_or_length_arrives),
                        scene_test(a_download_that_is_cut_off_goes_on_where_it_was),
                        scene_test(another_run_goes_on_too),
                        scene_test(a_partial_file_of_another_url_is_not_continued),
                        scene_test(without_a_validator_it_starts_anew),
                        scene_test(without_range_support_it_starts_anew),
                        scene_test(a_file_that_changed_meanwhile_is_fetched_anew),
                        scene_test(a_partial_file_that_was_tampered_with_does_no_harm),
                        scene_test(a_partial_file_that_is_whole_is_taken),
                        scene_test(a_partial_file_that_is_too_long_is_dropped),
                        scene_test(a_wrong_hash_removes_everything),
                        scene_test(a_wrong_file_in_place_stays_until_the_right_one_is_whole),
                        scene_test(a_stall_is_noticed_and_passes),
                        scene_test(what_can_pass_is_tried_again_and_what_cannot_is_not),
                        scene_test(a_host_that_does_not_exist_is_no_network),
                        scene_test(redirects_lead_to_the_file_but_never_to_plain_http),
                        scene_test(a_proxy_from_the_environment_is_used_but_not_for_this_machine),
                        scene_test(room_is_checked_before_the_download),
                        scene_test(a_disk_that_fills_up_is_an_error_and_no_file),
                        scene_test(two_programs_fetch_a_file_once),
                        scene_test(who_waits_takes_over_from_one_that_was_killed),
                        scene_test(an_interruption_ends_it_and_keeps_what_came),
                        scene_test(a_server_in_trouble_is_given_time),
                        scene_test(a_wrong_range_or_length_is_found_out),
                        scene_test(a_file_that_never_stays_the_same_is_given_up),
                        scene_test(an_encoding_that_nobody_asked_for_is_refused),
                        scene_test(killed_at_thirty_moments_it_is_whole_in_the_end),
                        scene_test(a_bit_that_flips_in_the_cache_is_found),
                        scene_test(who_waits_shows_how_far_the_other_is),
                        scene_test(progress_counts_bytes_across_attempts),
        };
        return cmocka_run_group_tests_name("http_download", tests, https_group_setup, https_group_teardown);
}
