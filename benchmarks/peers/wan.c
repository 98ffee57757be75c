/* wan: a long, lossy path between two network namespaces, in user space (for kernels without netem).
 *
 * usage, as root: wan --delay MS --loss PERCENT --rate MBIT --queue PACKETS --seconds S
 *   makes wan-a (10.201.0.1) and wan-b (10.201.0.2), joined by two tun devices. Each way, a packet is lost with LOSS %,
 *   waits its turn on a line of RATE Mbit/s behind at most QUEUE others, and arrives DELAY ms later.
 *   Prints "ready"; removes the namespaces after S seconds, on SIGTERM or on SIGINT.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PACKET_BYTES_MAX = 1500, READS_PER_TURN = 64 };

#define NS_PER_S 1000000000ull

struct packet {
    uint64_t due_ns;
    ssize_t bytes;
    unsigned char data[PACKET_BYTES_MAX];
};

struct way {                    /* one direction: a ring of packets in order of arrival */
    int from_fd, to_fd;
    struct packet *ring;
    size_t first, count, size;
    uint64_t line_free_ns;      /* when the line has sent all that it was given */
};

struct path {
    uint64_t delay_ns;
    double loss;                /* 0..1 */
    double ns_per_byte;
};

static volatile sig_atomic_t is_over;

static void on_signal(int number)
{
    (void)number;
    is_over = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "wan: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static int open_tun(const char *name)
{
    struct ifreq request = {0};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        die("/dev/net/tun");
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        die("TUNSETIFF");
    return fd;
}

static void remove_namespaces(void)
{
    if (system("ip netns del wan-a 2>/dev/null; ip netns del wan-b 2>/dev/null")) {
        /* nothing was there */
    }
}

static void make_end(const char *namespace, const char *device, const char *own, const char *other)
{
    char command[512];
    snprintf(command, sizeof command,
             "ip netns add %1$s && ip link set %2$s netns %1$s"
             " && ip -n %1$s addr add %3$s peer %4$s dev %2$s"
             " && ip -n %1$s link set %2$s up txqueuelen 4000 && ip -n %1$s link set lo up",
             namespace, device, own, other);
    if (system(command) != 0) {
        remove_namespaces();
        fprintf(stderr, "wan: cannot set up %s\n", namespace);
        exit(1);
    }
}

/* Take what waits at the near end; what is lost or finds the queue full is read and forgotten. */
static void take(struct way *way, const struct path *path)
{
    for (int i = 0; i < READS_PER_TURN; i++) {
        unsigned char data[PACKET_BYTES_MAX];
        ssize_t bytes = read(way->from_fd, data, sizeof data);
        if (bytes <= 0)
            return;
        if (drand48() < path->loss || way->count == way->size)
            continue;
        uint64_t now = now_ns();
        if (way->line_free_ns < now)
            way->line_free_ns = now;
        way->line_free_ns += (uint64_t)((double)bytes * path->ns_per_byte);
        struct packet *packet = &way->ring[(way->first + way->count++) % way->size];
        packet->due_ns = way->line_free_ns + path->delay_ns;
        packet->bytes = bytes;
        memcpy(packet->data, data, (size_t)bytes);
    }
}

/* Deliver what is due; how long until the next packet is, at most 50 ms. */
static uint64_t deliver(struct way *way)
{
    while (way->count) {
        struct packet *packet = &way->ring[way->first];
        uint64_t now = now_ns();
        if (packet->due_ns > now)
            return packet->due_ns - now < 50000000 ? packet->due_ns - now : 50000000;
        if (write(way->to_fd, packet->data, (size_t)packet->bytes) < 0 && errno == EAGAIN)
            return 100000;
        way->first = (way->first + 1) % way->size;
        way->count--;
    }
    return 50000000;
}

int main(int argc, char **argv)
{
    double delay_ms = 20, loss_percent = 0, rate_mbit = 1000, lifetime_s = 60;
    size_t queue_packets = 4000;
    for (int i = 1; i < argc; i += 2) {
        double value = i + 1 < argc ? atof(argv[i + 1]) : -1;
        if (value >= 0 && !strcmp(argv[i], "--delay"))
            delay_ms = value;
        else if (value >= 0 && !strcmp(argv[i], "--loss"))
            loss_percent = value;
        else if (value > 0 && !strcmp(argv[i], "--rate"))
            rate_mbit = value;
        else if (value >= 1 && !strcmp(argv[i], "--queue"))
            queue_packets = (size_t)value;
        else if (value > 0 && !strcmp(argv[i], "--seconds"))
            lifetime_s = value;
        else {
            fprintf(stderr, "wan: %s: unknown option or impossible value\n", argv[i]);
            return 2;
        }
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    srand48(7);         /* the same losses every time */
    remove_namespaces();

    int a = open_tun("wan0"), b = open_tun("wan1");
    make_end("wan-a", "wan0", "10.201.0.1", "10.201.0.2");
    make_end("wan-b", "wan1", "10.201.0.2", "10.201.0.1");
    struct path path = {(uint64_t)(delay_ms * 1e6), loss_percent / 100, 8000 / rate_mbit};
    struct way forth = {.from_fd = a, .to_fd = b, .size = queue_packets};
    struct way back = {.from_fd = b, .to_fd = a, .size = queue_packets};
    forth.ring = calloc(queue_packets, sizeof *forth.ring);
    back.ring = calloc(queue_packets, sizeof *back.ring);
    if (!forth.ring || !back.ring)
        die("queue");

    uint64_t end_ns = now_ns() + (uint64_t)(lifetime_s * 1e9);
    printf("ready\n");
    fflush(stdout);
    while (!is_over && now_ns() < end_ns) {
        take(&forth, &path);
        take(&back, &path);
        uint64_t wait_forth_ns = deliver(&forth), wait_back_ns = deliver(&back);
        uint64_t wait_ns = wait_forth_ns < wait_back_ns ? wait_forth_ns : wait_back_ns;
        struct pollfd ends[] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
        struct timespec pause = {0, (long)wait_ns};
        ppoll(ends, 2, &pause, NULL);
    }
    remove_namespaces();
    return 0;
}
