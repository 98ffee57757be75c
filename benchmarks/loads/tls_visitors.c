/* tls_visitors: TLS visitors by the hundred thousand: a handshake each, then good-bye, or a request first.
 *
 * usage: tls_visitors --address IP --port N --name HOST [--threads N] [--conns N] [--seconds S | --count N]
 *                     [--resume] [--request HOST]
 *   --conns at once, in all; each ends before its next one begins. A handshake counts once the server's first ticket
 *   has come: until then TLS 1.3 leaves open whether the server has accepted it. With --resume each offers the last
 *   ticket that it got; with --request it asks for / under HOST, and counts once the answer with status 200 is whole.
 *   Prints one line: handshakes failed resumed seconds processor_seconds, and what the first failure was.
 * No certificate is verified, but its signature of the handshake is, as libssl always does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SOURCE_COUNT = 16, EVENTS_PER_TURN = 64, ANSWER_BYTES_MAX = 4096, QUIET_S = 20 };
#define BIND_ADDRESS_NO_PORT 24 /* <linux/in.h>: the source port is chosen at connect, per destination */

struct conn {
    int fd;
    SSL *ssl;
    SSL_SESSION *session;   /* the last ticket; NULL: none, or not wanted */
    int has_ticket, is_up, answer_bytes;
    char answer[ANSWER_BYTES_MAX];
};

static struct sockaddr_in server;
static const char *name = "", *request_host = NULL;
static char request[512];
static int conn_count = 64, thread_count = 2, resumes = 0;
static double seconds = 10.0;
static long count_max = 0;
static SSL_CTX *context;
static atomic_long begun, handshakes, failed, resumed;
static atomic_int over;
static atomic_flag has_words = ATOMIC_FLAG_INIT;
static char words[200];

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void note_failure(const char *what) {
    atomic_fetch_add(&failed, 1);
    if (!atomic_flag_test_and_set(&has_words)) {
        unsigned long code = ERR_peek_last_error();
        snprintf(words, sizeof(words), "%s: %s", what,
                 code ? ERR_reason_error_string(code) : errno ? strerror(errno) : "closed");
    }
    ERR_clear_error();
}

static int on_session(SSL *ssl, SSL_SESSION *session) {
    struct conn *conn = SSL_get_app_data(ssl);
    conn->has_ticket = 1;
    if (!resumes) return 0;
    SSL_SESSION_free(conn->session);
    conn->session = session;
    return 1;
}

static void leave(struct conn *conn, int in_order) {
    if (conn->ssl) {
        /* Freed without a good-bye, libssl would forbid to resume the session. */
        if (in_order) SSL_shutdown(conn->ssl);
        else SSL_set_shutdown(conn->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(conn->ssl);
    }
    if (conn->fd >= 0) close(conn->fd);
    conn->ssl = NULL;
    conn->fd = -1;
}

/* 0: no further one is wanted; -1: it failed, and was counted. */
static int begin(struct conn *conn, int epoll, int index) {
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = conn};
    int on = 1;
    long number = atomic_fetch_add(&begun, 1);
    if (atomic_load(&over) || (count_max && number >= count_max)) return 0;
    conn->has_ticket = conn->is_up = conn->answer_bytes = 0;
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if ((ntohl(server.sin_addr.s_addr) >> 24) == 127) { /* several: one has too few ports, and caps count by address */
        setsockopt(conn->fd, IPPROTO_IP, BIND_ADDRESS_NO_PORT, &on, sizeof(on));
        source.sin_addr.s_addr = htonl(0x7f000002u + (uint32_t)(index % SOURCE_COUNT));
        bind(conn->fd, (struct sockaddr *)&source, sizeof(source));
    }
    conn->ssl = SSL_new(context);
    SSL_set_app_data(conn->ssl, conn);
    SSL_set_fd(conn->ssl, conn->fd);
    SSL_set_tlsext_host_name(conn->ssl, name);
    if (conn->session) SSL_set_session(conn->ssl, conn->session);
    SSL_set_connect_state(conn->ssl);
    if ((connect(conn->fd, (struct sockaddr *)&server, sizeof(server)) < 0 && errno != EINPROGRESS)
        || epoll_ctl(epoll, EPOLL_CTL_ADD, conn->fd, &event) < 0) {
        note_failure("connect");
        leave(conn, 0);
        return -1;
    }
    return 1;
}

static int is_answer_whole(struct conn *conn) {
    char *end, *length;
    conn->answer[conn->answer_bytes] = 0;
    end = strstr(conn->answer, "\r\n\r\n");
    length = strcasestr(conn->answer, "content-length:");
    return end && length && conn->answer + conn->answer_bytes - end - 4 >= atol(length + 15);
}

/* 1: done and good, 0: awaits more, -1: failed, and was counted. */
static int go_on(struct conn *conn) {
    int rc, error;
    if (!conn->is_up) {
        ERR_clear_error();
        errno = 0;
        rc = SSL_do_handshake(conn->ssl);
        if (rc <= 0) {
            error = SSL_get_error(conn->ssl, rc);
            if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
            note_failure("handshake");
            return -1;
        }
        conn->is_up = 1;
        if (SSL_session_reused(conn->ssl)) atomic_fetch_add(&resumed, 1);
        if (SSL_version(conn->ssl) < TLS1_3_VERSION) conn->has_ticket = 1;
        if (request_host && SSL_write(conn->ssl, request, (int)strlen(request)) <= 0) {
            note_failure("request");
            return -1;
        }
    }
    while (request_host || !conn->has_ticket) {
        char *to = conn->answer + conn->answer_bytes;
        ERR_clear_error();
        errno = 0;
        rc = SSL_read(conn->ssl, to, ANSWER_BYTES_MAX - 1 - conn->answer_bytes);
        if (rc > 0) {
            conn->answer_bytes += rc;
            if (!is_answer_whole(conn)) continue;
            if (strncmp(conn->answer, "HTTP/1.1 200 ", 13) == 0) return 1;
            note_failure("a bad answer");
            return -1;
        }
        error = SSL_get_error(conn->ssl, rc);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
            return conn->has_ticket && !request_host;
        note_failure(request_host ? "answer" : "ticket");
        return -1;
    }
    return 1;
}

static void *run(void *number) {
    int first = (int)(intptr_t)number, own = 0, live = 0, epoll = epoll_create1(EPOLL_CLOEXEC), rc, i, n;
    struct conn *conns = calloc((size_t)conn_count, sizeof(*conns));
    struct epoll_event events[EVENTS_PER_TURN];
    if (!conns) abort();
    for (i = first; i < conn_count; i += thread_count) {
        conns[own].fd = -1;
        rc = begin(&conns[own], epoll, i);
        live += rc > 0;
        own++;
    }
    while (live > 0) {
        n = epoll_wait(epoll, events, EVENTS_PER_TURN, QUIET_S * 1000);
        if (n == 0) {
            note_failure("nothing came for 20 s");
            break;
        }
        for (i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn->fd < 0) continue;
            rc = go_on(conn);
            if (rc == 0) continue;
            if (rc > 0) atomic_fetch_add(&handshakes, 1);
            leave(conn, rc > 0);
            do rc = begin(conn, epoll, first + (int)(conn - conns) * thread_count); while (rc < 0 && !atomic_load(&over));
            live -= rc <= 0;
        }
    }
    for (i = 0; i < own; i++) {
        leave(&conns[i], 0);
        SSL_SESSION_free(conns[i].session);
    }
    free(conns);
    close(epoll);
    return NULL;
}

static void *end_in_time(void *unused) {
    struct timespec rest = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    (void)unused;
    nanosleep(&rest, NULL);
    atomic_store(&over, 1);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[64], timer;
    struct rusage used;
    double began;
    int i;
    server.sin_family = AF_INET;
    for (i = 1; i < argc; i++) {
        const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(word, "--resume")) { resumes = 1; continue; }
        if (!strcmp(word, "--address")) inet_pton(AF_INET, value, &server.sin_addr);
        else if (!strcmp(word, "--port")) server.sin_port = htons((uint16_t)atoi(value));
        else if (!strcmp(word, "--name")) name = value;
        else if (!strcmp(word, "--threads")) thread_count = atoi(value);
        else if (!strcmp(word, "--conns")) conn_count = atoi(value);
        else if (!strcmp(word, "--seconds")) seconds = atof(value);
        else if (!strcmp(word, "--count")) count_max = atol(value);
        else if (!strcmp(word, "--request")) request_host = value;
        else { fprintf(stderr, "unknown word: %s\n", word); return 2; }
        i++;
    }
    if (thread_count < 1 || thread_count > 64 || conn_count < 1) { fprintf(stderr, "--threads 1 to 64\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    if (request_host)
        snprintf(request, sizeof(request), "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", request_host);
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set1_groups_list(context, "X25519");
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    began = now_s();
    if (!count_max && pthread_create(&timer, NULL, end_in_time, NULL) == 0) pthread_detach(timer);
    for (i = 0; i < thread_count; i++) pthread_create(&threads[i], NULL, run, (void *)(intptr_t)i);
    for (i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
    getrusage(RUSAGE_SELF, &used);
    printf("%ld %ld %ld %.6f %.6f %s\n", atomic_load(&handshakes), atomic_load(&failed), atomic_load(&resumed),
           now_s() - began,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
               + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6, words);
    return 0;
}
