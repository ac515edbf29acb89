/* The load loops of load.py in C, for servers that a Python client cannot keep busy: the same prepared
 * streams, the same checks (here every byte of every reply, large ones too), the same timing. Called through
 * ctypes by native.py, which owns the sockets and every buffer except this file's own state.
 *
 * One connection carries two periodic byte streams: what we send and what must come back. Requests are
 * given twice, and `expected` reaches one read beyond its period, so that no send and no comparison wraps. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 262144
#define STALL_MS 10000
#define CONTROL_BYTES 131 /* the longest control frame, masked */

struct stream {
    int fd;
    const unsigned char *requests, *expected;
    size_t request_bytes, one_request, expected_bytes, frame_bytes, read_bytes;
};

struct job {
    int connections, in_flight, publishers; /* publishers: 0 for echo */
    double warm_up, seconds;
    const struct stream *streams;
    double *latencies;
    size_t latency_room;
    void (*started)(void), (*stopped)(void);
    /* results */
    size_t latency_count;
    uint64_t messages, pings;
    double elapsed, cpu;
    char error[400];
};

struct connection {
    const struct stream *stream;
    size_t at_request, at_expected, unsent;
    long left;
    double since;
    uint64_t count;
    size_t held, pong;                       /* bytes of an unfinished control frame; of a pong to send */
    unsigned char held_bytes[CONTROL_BYTES], pong_bytes[CONTROL_BYTES];
    int watching_out;
};

static struct job *job;
static struct connection *all;
static int epoll_fd;
static size_t stride, skipped; /* of the latencies, every stride-th is kept */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int fail(const char *text, const unsigned char *expected, const unsigned char *got, size_t n) {
    if (job->error[0]) return -1;
    size_t used = snprintf(job->error, sizeof job->error, "%s", text);
    const unsigned char *both[] = {expected, got};
    for (int k = 0; k < 2; k++) {
        if (!both[k] || used > sizeof job->error - 120) continue;
        used += snprintf(job->error + used, 16, k ? ", got " : ": expected ");
        for (size_t i = 0; i < n && i < 32; i++)
            used += snprintf(job->error + used, 5, both[k][i] >= 32 && both[k][i] < 127 ? "%c" : "\\x%02x", both[k][i]);
    }
    return -1;
}

static void watch(struct connection *c, int out) {
    if (out == c->watching_out) return;
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->stream->fd, &event);
    c->watching_out = out;
}

/* Send what is due; what the socket does not take stays due. A pong goes out between two frames only. */
static int push(struct connection *c) {
    const struct stream *s = c->stream;
    for (;;) {
        const unsigned char *data = s->requests + c->at_request;
        size_t n = c->unsent;
        int pong = c->pong && c->at_request % s->one_request == 0;
        if (pong) {
            data = c->pong_bytes;
            n = c->pong;
        } else if (c->pong && n > s->one_request - c->at_request % s->one_request) {
            n = s->one_request - c->at_request % s->one_request;
        }
        if (!pong && n > 2 * s->request_bytes - c->at_request) n = 2 * s->request_bytes - c->at_request;
        if (!n) break;
        ssize_t sent = send(s->fd, data, n, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) break;
            return fail("the server reset the connection", NULL, NULL, 0);
        }
        if (pong) {
            memmove(c->pong_bytes, c->pong_bytes + sent, c->pong - sent);
            c->pong -= sent;
            if (c->pong) break;
        } else {
            c->at_request = (c->at_request + sent) % s->request_bytes;
            c->unsent -= sent;
        }
        if ((size_t)sent < n) break;
    }
    if (c->unsent || c->pong || c->watching_out) watch(c, c->unsent || c->pong);
    return 0;
}

static int control(struct connection *c, const unsigned char *frame, size_t n) {
    if ((frame[0] & 0x0f) == 8) {
        char text[120];
        snprintf(text, sizeof text, "the server closed the connection: %d", n >= 4 ? frame[2] << 8 | frame[3] : 1005);
        return fail(text, NULL, NULL, 0);
    }
    if ((frame[0] & 0x0f) == 9) {
        job->pings++;
        if (c->pong) return 0; /* an earlier one still waits: one pong answers both (RFC 6455 section 5.5.3) */
        c->pong_bytes[0] = 0x8a;
        c->pong_bytes[1] = 0x80 | (n - 2);
        memset(c->pong_bytes + 2, 0, 4); /* a masking key of zeros */
        memcpy(c->pong_bytes + 6, frame + 2, n - 2);
        c->pong = n + 4;
        return push(c);
    }
    return 0;
}

/* Is this whole data frame one that a publisher sends? Any order is right with several publishers. */
static int known(const struct stream *s, const unsigned char *frame) {
    for (size_t at = 0; at < s->expected_bytes; at += s->frame_bytes)
        if (!memcmp(s->expected + at, frame, s->frame_bytes)) return 1;
    return 0;
}

/* Check bytes that belong to data frames; return 0 or -1. The position in the stream is moved. */
static int check(struct connection *c, const unsigned char *data, size_t n) {
    const struct stream *s = c->stream;
    if (job->publishers <= 1) {
        if (memcmp(s->expected + c->at_expected, data, n))
            return fail("wrong byte in a reply", s->expected + c->at_expected, data, n);
        c->at_expected = (c->at_expected + n) % s->expected_bytes;
        return 0;
    }
    /* Several publishers: whole frames inside this read are compared with what is published; of one that
     * is cut by the end of a read, the beginning is known by its header only. */
    size_t inside = c->at_expected % s->frame_bytes, at = inside ? s->frame_bytes - inside : 0;
    for (; at + s->frame_bytes <= n; at += s->frame_bytes)
        if (!known(s, data + at)) return fail("wrong byte in a delivery", s->expected, data + at, s->frame_bytes);
    if (at < n && memcmp(data + at, s->expected, n - at < 2 ? n - at : 2))
        return fail("wrong byte in a delivery", s->expected, data + at, n - at);
    c->at_expected = (c->at_expected + n) % s->expected_bytes;
    return 0;
}

/* Take what one read returned; return how many replies it completed, or -1. */
static long take(struct connection *c, const unsigned char *data, size_t n) {
    const struct stream *s = c->stream;
    size_t inside = c->at_expected % s->frame_bytes;
    if (!c->held && job->publishers <= 1 && !memcmp(s->expected + c->at_expected, data, n)) {
        c->at_expected += n;
        if (c->at_expected >= s->expected_bytes) c->at_expected %= s->expected_bytes;
        return (inside + n) / s->frame_bytes;
    }
    size_t began = inside, taken = 0; /* data frames' bytes */
    while (n) {
        inside = c->at_expected % s->frame_bytes;
        if (c->held || (!inside && (data[0] & 0x0f) >= 8)) {
            while (n && (c->held < 2 || c->held < 2u + (c->held_bytes[1] & 0x7f))) {
                if (c->held == 2 && c->held_bytes[1] > 125) return fail("a control frame longer than 125", NULL, NULL, 0);
                c->held_bytes[c->held++] = *data++;
                n--;
            }
            if (c->held < 2 || c->held < 2u + c->held_bytes[1]) break;
            size_t length = c->held;
            c->held = 0;
            if (control(c, c->held_bytes, length)) return -1;
            continue;
        }
        /* As far as no frame boundary is passed where a control frame stands. */
        size_t part = s->frame_bytes - inside;
        while (part < n && (data[part] & 0x0f) < 8) part += s->frame_bytes;
        if (part > n) part = n;
        if (check(c, data, part)) return -1;
        taken += part;
        data += part;
        n -= part;
    }
    return (began + taken) / s->frame_bytes;
}

static void timed(double seconds) {
    if (++skipped < stride) return;
    skipped = 0;
    if (job->latency_count == job->latency_room) {
        for (size_t i = 0; i < job->latency_room / 2; i++) job->latencies[i] = job->latencies[2 * i];
        job->latency_count = job->latency_room / 2;
        stride *= 2;
    }
    job->latencies[job->latency_count++] = seconds;
}

static uint64_t published, slowest, *at_count, spread;
static double *sent_at;

static int publish(uint64_t number) {
    double t = now();
    for (uint64_t n = published; n < published + number; n++) {
        sent_at[n % spread] = t;
        if (job->publishers > 1) {
            struct connection *c = &all[n % job->publishers];
            c->unsent += c->stream->one_request;
            if (push(c)) return -1;
        }
    }
    if (job->publishers == 1) {
        all[0].unsent += number * all[0].stream->one_request;
        if (push(&all[0])) return -1;
    }
    published += number;
    return 0;
}

static int loop(struct epoll_event *events, unsigned char *buffer) {
    int n = job->connections, echo = job->publishers == 0, measuring = 0, stopping = 0;
    uint64_t count = 0, owed = 0;
    double start = now(), stop = start + job->warm_up, cpu = 0;
    if (echo) {
        for (int i = 0; i < n; i++) {
            all[i].left = job->in_flight;
            all[i].since = now();
            all[i].unsent = job->in_flight * all[i].stream->one_request;
            if (push(&all[i])) return -1;
        }
        owed = (uint64_t)n * job->in_flight;
    } else {
        at_count[0] = n;
        if (publish(job->in_flight)) return -1;
    }
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, n, STALL_MS);
        double t = now();
        if (t >= stop && !stopping) {
            if (measuring) {
                job->messages = count;
                job->elapsed = t - start;
                job->cpu = cpu_time() - cpu;
                job->stopped();
                stopping = 1;
            } else {
                measuring = 1;
                job->started();
                job->latency_count = skipped = 0;
                stride = 1;
                count = 0;
                start = now();
                stop = start + job->seconds;
                cpu = cpu_time();
            }
        }
        if (ready == 0) return fail("nothing came for 10 s while replies were owed", NULL, NULL, 0);
        uint64_t before = slowest;
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT && push(c)) return -1;
            if (!(events[i].events & ~EPOLLOUT)) continue;
            ssize_t got = recv(c->stream->fd, buffer, c->stream->read_bytes, 0);
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN) continue;
                return fail(got ? "the server reset the connection" : "the server ended the connection", NULL, NULL, 0);
            }
            long done = take(c, buffer, got);
            if (done < 0) return -1;
            if (!done) continue;
            count += done;
            if (echo) {
                if (stopping) {
                    if ((uint64_t)done > owed) return fail("more replies than requests", NULL, NULL, 0);
                    owed -= done;
                    continue;
                }
                c->left -= done;
                if (c->left <= 0) {
                    t = now();
                    timed(t - c->since);
                    c->left = job->in_flight;
                    c->since = t;
                }
                c->unsent += done * c->stream->one_request;
                if (push(c)) return -1;
            } else {
                at_count[c->count % spread]--;
                c->count += done;
                at_count[c->count % spread]++;
                if (c->count > published)
                    return fail("a member received more messages than were sent", NULL, NULL, 0);
                if (slowest < published && !at_count[slowest % spread]) {
                    t = now();
                    while (slowest < published && !at_count[slowest % spread]) {
                        if (!stopping) timed(t - sent_at[slowest % spread]);
                        slowest++;
                    }
                }
            }
        }
        if (stopping && (echo ? owed == 0 : slowest == published)) return 0;
        if (!echo && !stopping && slowest > before && publish(slowest - before)) return -1;
    }
}

/* Run one job; 0, or -1 with job->error. */
int run(struct job *given) {
    job = given;
    job->error[0] = 0;
    job->latency_count = job->pings = skipped = 0;
    stride = 1;
    published = slowest = 0;
    spread = 4 * (uint64_t)job->in_flight;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    all = calloc(job->connections, sizeof *all);
    at_count = calloc(spread, sizeof *at_count);
    sent_at = calloc(spread, sizeof *sent_at);
    struct epoll_event *events = calloc(job->connections, sizeof *events);
    unsigned char *buffer = malloc(READ_BYTES);
    int result = -1;
    if (epoll_fd < 0 || !all || !at_count || !sent_at || !events || !buffer) {
        fail("no memory or no epoll", NULL, NULL, 0);
    } else {
        for (int i = 0; i < job->connections; i++) {
            all[i].stream = &job->streams[i];
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, job->streams[i].fd, &event);
        }
        result = loop(events, buffer);
    }
    if (epoll_fd >= 0) close(epoll_fd);
    free(all);
    free(at_count);
    free(sent_at);
    free(events);
    free(buffer);
    return result;
}
