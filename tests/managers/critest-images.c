/* The programs of critest's images besides busybox, by the name of the file: `nonewprivs` says who it is, any other serves
 * a page on the port $PORT and says that it is nginx. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static const char page[] = "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\nnginx\n";
	struct sockaddr_in6 addr = { .sin6_family = AF_INET6 };
	char *title[] = { "nginx: master process", NULL };
	int one = 1, zero = 0, server, client;
	char request[4096];
	FILE *file;

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
