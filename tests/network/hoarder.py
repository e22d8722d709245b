"""A guest that listens wherever it can, and stops as fast as it can."""
import resource, socket, threading

resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def hurry(first):
    for n in range(1000):
        listener = socket.create_server(("127.0.0.1", first + n % 10))
        listener.close()


hurried = [threading.Thread(target=hurry, args=(10_000 + 10 * n,)) for n in range(3)]
for thread in hurried:
    thread.start()
for thread in hurried:
    thread.join()
hoard = [socket.create_server(("", 20_000 + n)) for n in range(600)]
print("ready", flush=True)
# Half of it is given up when somebody calls.
hoard[0].accept()
for listener in hoard[:300]:
    listener.close()
threading.Event().wait()
