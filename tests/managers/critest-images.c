/* The programs of critest's images besides busybox, by the name of the file: `nonewprivs` says who it is, `sh` is the shell
 * save for the program that only waits, as does `pause`; any other serves a page on the port $PORT and says that it is nginx. All end by SIGTERM, which a first process does not
 * by itself: a manager would wait for as long as it may before it kills them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void end(int signal)
{
	(void)signal;
	_exit(0);
}

static int is_shell(const char *name)
{
	size_t length = strlen(name);

	return length >= 2 && !strcmp(name + length - 2, "sh");
}

int main(int argc, char **argv)
{
	static const char page[] = "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\nnginx\n";
	struct sockaddr_in6 addr = { .sin6_family = AF_INET6 };
	char *title[] = { "nginx: master process", NULL };
	int one = 1, zero = 0, server, client;
	char request[4096];
	FILE *file;

	signal(SIGTERM, end);
	if (strstr(argv[0], "pause") || (is_shell(argv[0]) && argc == 3 && !strcmp(argv[2], "top")))
		for (;;)
			pause();
	if (is_shell(argv[0])) {
		argv[0] = "sh";
		signal(SIGTERM, SIG_DFL);
		return execv("/bin/busybox", argv), 127;
	}
	if (strstr(argv[0], "nonewprivs")) {
		printf("Effective uid: %d\n", geteuid());
		return 0;
	}
	if (strcmp(argv[0], title[0]))
		return execv("/proc/self/exe", title), 1;
	file = fopen("/var/run/nginx.pid", "w");
	if (file && fprintf(file, "%d\n", getpid()) > 0)
		fclose(file);
	server = socket(AF_INET6, SOCK_STREAM, 0);
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
	addr.sin6_port = htons(getenv("PORT") ? atoi(getenv("PORT")) : 80);
	if (bind(server, (struct sockaddr *)&addr, sizeof addr) || listen(server, 16))
		return perror("bind"), 1;
	puts("httpd");
	fflush(stdout);
	while ((client = accept(server, NULL, NULL)) >= 0) {
		if (read(client, request, sizeof request) > 0 && write(client, page, sizeof page - 1) > 0)
			shutdown(client, SHUT_WR);
		close(client);
	}
	return 1;
}
