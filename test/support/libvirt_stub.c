/*
 * A libvirt that misbehaves on demand: every function that bootshim calls, over domains kept in memory, with an account
 * of every handle and string given out. Built by libvirt_stub.ts; controlled through the stub_ functions.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

extern void __libc_free(void *pointer);

enum mode { WELL, FAIL, LOST, HANG, SILENT, BIG, LATIN, STRANGE };

struct connection { int magic; };
struct domain { int magic; int index; };
struct guest { char name[128]; char uuid[37]; char *xml; int defined, running; };

enum { CONNECTION = 0x600d0001, DOMAIN = 0x600d0002, DEAD = 0x0dead000, GUESTS = 64, BIG_BYTES = 10 << 20 };

static struct guest guests[GUESTS];
static struct { char symbol[64]; int mode, left; } armed[16];
static int connections, domains, strings, bad, foreign, starts, callbacks, calls, owner;
static struct { int event, detail; } events[64];
static int event_count, close_reason = -1;
static void (*on_event)(void *, void *, int, int, void *);
static void (*on_close)(void *, int, void *);
static struct connection *watched;

static __thread int error_code, error_domain;
static __thread char *error_text;

/* --- control ---------------------------------------------------------------------------------------------------- */

/* The next `left` calls of a symbol misbehave. */
void stub_arm(const char *symbol, int mode, int left) {
  for (int i = 0; i < 16; i++) {
    if (armed[i].left != 0 && strcmp(armed[i].symbol, symbol) != 0) continue;
    snprintf(armed[i].symbol, sizeof armed[i].symbol, "%s", symbol);
    armed[i].mode = mode;
    armed[i].left = left;
    return;
  }
  abort();
}

void stub_reset(void) {
  memset(armed, 0, sizeof armed);
  memset(guests, 0, sizeof guests);
  connections = domains = strings = bad = foreign = starts = callbacks = calls = owner = event_count = 0;
  close_reason = -1;
}

int stub_count(const char *what) {
  if (!strcmp(what, "connections")) return connections;
  if (!strcmp(what, "domains")) return domains;
  if (!strcmp(what, "strings")) return strings;
  if (!strcmp(what, "bad")) return bad;
  if (!strcmp(what, "foreign")) return foreign;
  if (!strcmp(what, "starts")) return starts;
  if (!strcmp(what, "callbacks")) return callbacks;
  if (!strcmp(what, "calls")) return calls;
  abort();
}

void stub_emit(int event, int detail) {
  events[event_count].event = event;
  events[event_count++].detail = detail;
}

void stub_close(int reason) { close_reason = reason; }

/* --- inside ------------------------------------------------------------------------------------------------------ */

static void fail(int code, int domain, const char *format, ...) {
  va_list list;
  va_start(list, format);
  __libc_free(error_text);
  error_text = NULL;
  if (vasprintf(&error_text, format, list) < 0) abort();
  va_end(list);
  error_code = code;
  error_domain = domain;
}

/* As the wire does it: the thread polls a socket until it is shut down. */
static void hang(void) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) abort();
  struct pollfd wait = { pair[0], POLLIN, 0 };
  while (poll(&wait, 1, -1) < 0) continue;
  close(pair[0]);
  close(pair[1]);
}

/* Every function begins here: forgets the last error, and tells how to misbehave. */
static int enter(const char *symbol) {
  calls++;
  int thread = gettid();
  if (owner == 0) owner = thread;
  else if (owner != thread) foreign++;
  error_code = error_domain = 0;
  __libc_free(error_text);
  error_text = NULL;
  for (int i = 0; i < 16; i++) {
    if (armed[i].left == 0 || strcmp(armed[i].symbol, symbol) != 0) continue;
    if (armed[i].left > 0) armed[i].left--;
    int mode = armed[i].mode;
    if (mode == FAIL) fail(9, 10, "%s failed as it was told", symbol);
    if (mode == LOST) fail(38, 7, "Cannot recv data: Connection reset by peer");
    if (mode == HANG) {
      hang();
      fail(38, 7, "Cannot recv data: %s was let go", symbol);
    }
    return mode;
  }
  return WELL;
}

static int failed(int mode) { return mode == FAIL || mode == HANG || mode == SILENT; }

static void *fresh(int magic) {
  struct domain *handle = calloc(1, sizeof *handle);
  handle->magic = magic;
  return handle;
}

/* Never given back to the allocator, so that a second release is seen and not a crash. */
static int release(void *handle, int magic, int *account) {
  struct connection *known = handle;
  if (known == NULL || known->magic != magic) {
    bad++;
    return -1;
  }
  known->magic = DEAD;
  (*account)--;
  return 0;
}

static struct guest *guest_of(struct domain *domain) {
  if (domain == NULL || domain->magic != DOMAIN) abort();
  return &guests[domain->index];
}

static struct domain *domain_of(int index) {
  struct domain *domain = fresh(DOMAIN);
  domain->index = index;
  domains++;
  return domain;
}

static void check(struct connection *connection) {
  if (connection == NULL || connection->magic != CONNECTION) abort();
}

static char *given(int mode, const char *text) {
  if (mode == LATIN) text = "caf\xe9 \xff\xfe <x/>";
  char *copy;
  if (mode == BIG) {
    copy = malloc(BIG_BYTES + 1);
    memset(copy, 'x', BIG_BYTES);
    copy[BIG_BYTES] = 0;
  } else {
    copy = strdup(text);
  }
  strings++;
  return copy;
}

static int between(const char *xml, const char *tag, char *into, size_t size) {
  char open[32], end[32];
  snprintf(open, sizeof open, "<%s>", tag);
  snprintf(end, sizeof end, "</%s>", tag);
  const char *from = strstr(xml, open);
  const char *to = from ? strstr(from, end) : NULL;
  if (to == NULL) return 0;
  from += strlen(open);
  snprintf(into, size, "%.*s", (int)(to - from), from);
  return 1;
}

/* --- the library -------------------------------------------------------------------------------------------------- */

/* libvirt's own C library's, through which bootshim gives strings and arrays back. */
void free(void *pointer) {
  if (pointer == NULL) return;
  strings--;
  __libc_free(pointer);
}

void virSetErrorFunc(void *data, void *handler) {}
void virResetError(void *error) {}
int virGetLastErrorCode(void) { return error_code; }
int virGetLastErrorDomain(void) { return error_domain; }
const char *virGetLastErrorMessage(void) { return error_text ? error_text : NULL; }

int virGetVersion(unsigned long *library, const char *type, unsigned long *version) {
  *library = 9000000;
  return failed(enter("virGetVersion")) ? -1 : 0;
}

void *virConnectOpen(const char *uri) {
  if (failed(enter("virConnectOpen"))) return NULL;
  connections++;
  return fresh(CONNECTION);
}

int virConnectClose(struct connection *connection) {
  int mode = enter("virConnectClose");
  if (watched == connection) {
    watched = NULL;
    bad++;
  }
  int released = release(connection, CONNECTION, &connections);
  return failed(mode) ? -1 : released;
}

int virConnectGetVersion(struct connection *connection, unsigned long *version) {
  check(connection);
  *version = 7002022;
  return failed(enter("virConnectGetVersion")) ? -1 : 0;
}

char *virConnectGetCapabilities(struct connection *connection) {
  check(connection);
  int mode = enter("virConnectGetCapabilities");
  return failed(mode) ? NULL : given(mode, "<capabilities/>");
}

char *virConnectGetDomainCapabilities(struct connection *connection, const char *emulator, const char *arch,
                                      const char *machine, const char *type, unsigned int flags) {
  check(connection);
  int mode = enter("virConnectGetDomainCapabilities");
  return failed(mode) ? NULL : given(mode, "<domainCapabilities/>");
}

int virConnectListAllDomains(struct connection *connection, struct domain ***list, unsigned int flags) {
  check(connection);
  if (failed(enter("virConnectListAllDomains"))) return -1;
  struct domain **array = calloc(GUESTS + 1, sizeof *array);
  int count = 0;
  for (int i = 0; i < GUESTS; i++) {
    if (guests[i].defined || guests[i].running) array[count++] = domain_of(i);
  }
  strings++;
  *list = array;
  return count;
}

void *virDomainDefineXMLFlags(struct connection *connection, const char *xml, unsigned int flags) {
  check(connection);
  int mode = enter("virDomainDefineXMLFlags");
  if (failed(mode)) return NULL;
  char name[128], uuid[37];
  if (!between(xml, "name", name, sizeof name) || !between(xml, "uuid", uuid, sizeof uuid)) {
    fail(27, 20, "XML error: no name or UUID in %s", xml);
    return NULL;
  }
  int index = -1;
  for (int i = GUESTS - 1; i >= 0; i--) {
    if (!guests[i].defined && !guests[i].running && (index < 0 || strcmp(guests[index].name, name))) index = i;
    if (!strcmp(guests[i].name, name) && (guests[i].defined || guests[i].running)) index = i;
  }
  struct guest *guest = &guests[index];
  snprintf(guest->name, sizeof guest->name, "%s", name);
  snprintf(guest->uuid, sizeof guest->uuid, "%s", uuid);
  guest->xml = strdup(xml);
  guest->defined = 1;
  if (mode == LOST) return NULL;
  return domain_of(index);
}

void *virDomainLookupByName(struct connection *connection, const char *name) {
  check(connection);
  int mode = enter("virDomainLookupByName");
  if (failed(mode) || mode == LOST) return NULL;
  for (int i = 0; i < GUESTS; i++) {
    if ((guests[i].defined || guests[i].running) && !strcmp(guests[i].name, name)) return domain_of(i);
  }
  fail(42, 10, "Domain not found: no domain with matching name '%s'", name);
  return NULL;
}

int virDomainCreate(struct domain *domain) {
  struct guest *guest = guest_of(domain);
  int mode = enter("virDomainCreate");
  if (failed(mode)) return -1;
  if (guest->running) {
    fail(55, 10, "Requested operation is not valid: domain is already running");
    return -1;
  }
  guest->running = 1;
  starts++;
  return mode == LOST ? -1 : 0;
}

int virDomainShutdown(struct domain *domain) {
  guest_of(domain);
  return failed(enter("virDomainShutdown")) ? -1 : 0;
}

int virDomainDestroy(struct domain *domain) {
  if (failed(enter("virDomainDestroy"))) return -1;
  guest_of(domain)->running = 0;
  return 0;
}

int virDomainUndefineFlags(struct domain *domain, unsigned int flags) {
  if (failed(enter("virDomainUndefineFlags"))) return -1;
  guest_of(domain)->defined = 0;
  return 0;
}

char *virDomainGetXMLDesc(struct domain *domain, unsigned int flags) {
  int mode = enter("virDomainGetXMLDesc");
  return failed(mode) ? NULL : given(mode, guest_of(domain)->xml);
}

const char *virDomainGetName(struct domain *domain) {
  int mode = enter("virDomainGetName");
  static char *big;
  if (mode == BIG && big == NULL) {
    big = malloc(BIG_BYTES + 1);
    memset(big, 'n', BIG_BYTES);
    big[BIG_BYTES] = 0;
  }
  if (mode == BIG) return big;
  if (mode == LATIN) return "caf\xe9";
  return failed(mode) ? NULL : guest_of(domain)->name;
}

int virDomainGetUUIDString(struct domain *domain, char *text) {
  if (failed(enter("virDomainGetUUIDString"))) return -1;
  memcpy(text, guest_of(domain)->uuid, 37);
  return 0;
}

unsigned int virDomainGetID(struct domain *domain) {
  enter("virDomainGetID");
  return guest_of(domain)->running ? 7 : (unsigned int)-1;
}

int virDomainGetState(struct domain *domain, int *state, int *reason, unsigned int flags) {
  int mode = enter("virDomainGetState");
  struct guest *guest = guest_of(domain);
  *state = mode == STRANGE ? 4711 : guest->running ? 1 : 5;
  *reason = guest->running ? 0 : 2;
  return failed(mode) ? -1 : 0;
}

int virDomainIsPersistent(struct domain *domain) {
  int mode = enter("virDomainIsPersistent");
  return failed(mode) ? -1 : guest_of(domain)->defined;
}

int virDomainFree(struct domain *domain) {
  enter("virDomainFree");
  return release(domain, DOMAIN, &domains);
}

/* --- events -------------------------------------------------------------------------------------------------------- */

int virEventRegisterDefaultImpl(void) { return 0; }
int virEventAddTimeout(int frequency, void *callback, void *opaque, void *release) { return 1; }
int virEventRemoveTimeout(int timer) { return 0; }

int virEventRunDefaultImpl(void) {
  if (failed(enter("virEventRunDefaultImpl"))) return -1;
  if (watched == NULL) return 0;
  for (int i = 0; i < event_count && on_event; i++) {
    struct domain *domain = domain_of(0);
    on_event(watched, domain, events[i].event, events[i].detail, NULL);
    release(domain, DOMAIN, &domains);
  }
  event_count = 0;
  int reason = close_reason;
  close_reason = -1;
  if (reason >= 0 && on_close) on_close(watched, reason, NULL);
  return 0;
}

int virConnectSetKeepAlive(struct connection *connection, int interval, unsigned int count) {
  check(connection);
  return failed(enter("virConnectSetKeepAlive")) ? -1 : 0;
}

int virConnectRegisterCloseCallback(struct connection *connection, void *callback, void *opaque, void *release) {
  check(connection);
  if (failed(enter("virConnectRegisterCloseCallback"))) return -1;
  on_close = callback;
  watched = connection;
  callbacks++;
  return 0;
}

int virConnectUnregisterCloseCallback(struct connection *connection, void *callback) {
  enter("virConnectUnregisterCloseCallback");
  on_close = NULL;
  watched = NULL;
  callbacks--;
  return 0;
}

int virConnectDomainEventRegisterAny(struct connection *connection, struct domain *domain, int id, void *callback,
                                     void *opaque, void *release) {
  check(connection);
  if (failed(enter("virConnectDomainEventRegisterAny"))) return -1;
  on_event = callback;
  callbacks++;
  return 0;
}

int virConnectDomainEventDeregisterAny(struct connection *connection, int id) {
  enter("virConnectDomainEventDeregisterAny");
  on_event = NULL;
  callbacks--;
  return 0;
}
