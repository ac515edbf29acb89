/* The ceiling: one epoll loop in C with nothing of WebSocket but the frame's shape. No limits, no UTF-8
 * check, no fragments, no timeouts. Same convention as the Python servers, see __init__.py:
 *
 *     ceiling PORT MODE        MODE is echo or fanout
 *
 * The suite's clients all send one key, so the handshake's answer is a constant. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FDS 65536
#define CHUNK (256 * 1024)

static const char ANSWER[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

struct connection {
    int open;                     /* the handshake is done */
    int closing;                  /* close once `out` is sent */
    unsigned char *in, *out;      /* bytes that wait: an unfinished frame, and what the socket did not take */
    size_t in_length, in_room, out_start, out_length, out_room;
};

static struct connection connections[MAX_FDS];
static int members[MAX_FDS], member_count, fanout, epoll_fd;
static unsigned char chunk[CHUNK];

static void drop(int fd) {
    struct connection *c = &connections[fd];
    free(c->in);
    free(c->out);
    memset(c, 0, sizeof *c);
    for (int i = 0; i < member_count; i++)
        if (members[i] == fd) {
            members[i] = members[--member_count];
            break;
        }
    close(fd);
}

static void append(unsigned char **data, size_t *length, size_t *room, const unsigned char *more, size_t n) {
    if (*length + n > *room) {
        *room = (*length + n) * 2;
        *data = realloc(*data, *room);
        if (!*data) exit(1);
    }
    memcpy(*data + *length, more, n);
    *length += n;
}

static void watch(int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event);
}

static void put(int fd, const unsigned char *data, size_t n) {
    struct connection *c = &connections[fd];
    if (c->out_length == 0) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent == (ssize_t)n) return;
        if (sent < 0) {
            if (errno != EAGAIN) return;
            sent = 0;
        }
        c->out_start = 0;
        append(&c->out, &c->out_length, &c->out_room, data + sent, n - sent);
        watch(fd, EPOLLIN | EPOLLOUT);
    } else {
        append(&c->out, &c->out_length, &c->out_room, data, n);
    }
}

static void flush(int fd) {
    struct connection *c = &connections[fd];
    ssize_t sent = send(fd, c->out + c->out_start, c->out_length - c->out_start, MSG_NOSIGNAL);
    if (sent > 0) c->out_start += sent;
    if (c->out_start == c->out_length) {
        c->out_start = c->out_length = 0;
        watch(fd, EPOLLIN);
        if (c->closing) drop(fd);
    }
}

/* Answer the whole frames in data; return how many bytes they took, or -1 when the connection ended. */
static ssize_t frames(int fd, unsigned char *data, size_t n) {
    static unsigned char *reply;
    static size_t room;
    size_t at = 0, length = 0;
    if (room < n + 16) reply = realloc(reply, room = 2 * n + 16);
    while (n - at >= 6) {
        unsigned char *p = data + at;
        uint64_t size = p[1] & 0x7f;
        size_t head = 2;
        if (size == 126) {
            size = (uint64_t)p[2] << 8 | p[3];
            head = 4;
        } else if (size == 127) {
            if (n - at < 10) break;
            size = 0;
            for (int i = 2; i < 10; i++) size = size << 8 | p[i];
            head = 10;
        }
        if (n - at < head + 4 + size) break;
        unsigned char *mask = p + head, *payload = mask + 4, *out = reply + length;
        memcpy(out, p, head);
        out[1] &= 0x7f;
        out += head;
        uint64_t mask8;
        memcpy(&mask8, mask, 4);
        memcpy((char *)&mask8 + 4, mask, 4);
        uint64_t i = 0;
        for (; i + 8 <= size; i += 8) {
            uint64_t word;
            memcpy(&word, payload + i, 8);
            word ^= mask8;
            memcpy(out + i, &word, 8);
        }
        for (; i < size; i++) out[i] = payload[i] ^ mask[i & 3];
        length += head + size;
        at += head + 4 + size;
        if ((p[0] & 0x0f) == 8) {
            put(fd, reply, length);
            if (connections[fd].out_length == 0) {
                drop(fd);
                return -1;
            }
            connections[fd].closing = 1;
            return at;
        }
    }
    if (length) {
        if (fanout)
            for (int i = 0; i < member_count; i++) put(members[i], reply, length);
        else
            put(fd, reply, length);
    }
    return at;
}

static void readable(int fd) {
    struct connection *c = &connections[fd];
    ssize_t n = recv(fd, chunk, CHUNK, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    if (c->open && c->in_length == 0) {
        ssize_t used = frames(fd, chunk, n);
        if (used >= 0 && used < n) append(&c->in, &c->in_length, &c->in_room, chunk + used, n - used);
        return;
    }
    append(&c->in, &c->in_length, &c->in_room, chunk, n);
    if (!c->open) {
        unsigned char *end = memmem(c->in, c->in_length, "\r\n\r\n", 4);
        if (!end) return;
        c->open = 1;
        c->in_length -= end + 4 - c->in;
        memmove(c->in, end + 4, c->in_length);
        put(fd, (const unsigned char *)ANSWER, sizeof ANSWER - 1);
        if (fanout) members[member_count++] = fd;
        if (c->in_length == 0) return;
    }
    ssize_t used = frames(fd, c->in, c->in_length);
    if (used > 0) {
        c->in_length -= used;
        memmove(c->in, c->in + used, c->in_length);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    fanout = !strcmp(argv[2], "fanout");
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[1024];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    printf("READY %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (fd >= MAX_FDS) {
                        close(fd);
                        continue;
                    }
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                    event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
                }
                continue;
            }
            if (events[i].events & EPOLLOUT) flush(fd);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(fd);
        }
    }
}
