import { isIP } from "node:net";
import type { Command } from "commander";
import { z } from "zod";
import { checkCallerReference, settingsForCallers } from "../../api/caller_reference.ts";
import type { Reloaded, ServeSettings } from "../../api/serve.ts";
import type { Environment, Settings } from "../../config/settings.ts";
import { ShimError, toShimError } from "../../errors.ts";
import { groupIdOf } from "../../host/accounts.ts";
import { effectiveUserId } from "../../host/file_system.ts";
import { addExamples } from "../examples.ts";
import { beginInvocation, type Composition, type Invocation, readOptions } from "../invocation.ts";
import { logger } from "../logging.ts";
import { VERSION } from "../version.ts";

const options = z.object({
  socket: z.string().startsWith("/", "must be an absolute path").optional(),
  mode: z.string().regex(/^0?[0-7]{3}$/, "must be octal, such as 0660").default("0660"),
  group: z.string().min(1).optional(),
  allowUid: z.array(z.string().regex(/^[0-9]{1,10}$/, "must be a user's number")).default([]),
  listen: z.string().optional(),
});

/** The first of the descriptors that a service manager hands over (sd_listen_fds(3)). */
const LISTEN_FDS_START = 3;

export function registerServe(program: Command, composition: Composition): void {
  const command = program.command("serve").description("serve the local API until SIGTERM or Ctrl-C")
    .option("--socket <path>", "the unix socket (default: /run/bootshim/bootshim.sock for root)")
    .option("--mode <octal>", "the socket's permissions", "0660")
    .option("--group <name>", "the socket's group")
    .option(
      "--allow-uid <n>",
      "only this user may call, besides root and us (repeatable)",
      (value: string, before: string[]) => [...before, value],
      [],
    )
    .option("--listen <address:port>", "loopback TCP in addition: every local user can then call");
  addExamples(command, [
    "serve --listen 127.0.0.1:8080",
    "serve --socket /run/bootshim/bootshim.sock --group machine-providers",
  ]);
  command.action(async () => {
    const invocation = await beginInvocation(command, composition);
    const given = readOptions(command, options);
    const { environment, settings, signal, terminal } = invocation;
    const context = await invocation.openContext(settingsForCallers(settings));
    if (given.listen !== undefined && given.allowUid.length > 0) {
      throw new ShimError(
        "REQUEST_INVALID",
        "Cannot serve with --listen and --allow-uid: over TCP nobody can tell which user calls",
        { details: { remedy: "do without --listen, or without --allow-uid" } },
      );
    }
    const serveSettings: ServeSettings = {
      socket: handedDescriptor(environment) ?? {
        path: given.socket ?? defaultSocket(environment),
        mode: Number.parseInt(given.mode, 8),
        groupId: given.group === undefined ? null : await groupIdOf(given.group),
      },
      callers: { allowedUserIds: allowedUsers(given.allowUid) },
      listen: given.listen === undefined ? null : readLoopback(given.listen),
      ...settings.api,
      version: VERSION,
      checkReference: (reference) => checkCallerReference(reference, settings.api.namedRegistries),
    };
    // No other command pays for the server's start.
    const { serve } = await import("../../api/serve.ts");
    await serve(context, serveSettings, {
      signal,
      onReady: () => {
        const { socket } = serveSettings;
        const where = "fd" in socket ? "the socket it was given" : socket.path;
        terminal.writeError(`bootshim ${VERSION} serves on ${where}\n`);
      },
      onServing: (apply) => {
        composition.onHangup(() => {
          void reload(invocation).then((next) => {
            apply(next);
            terminal.writeError("bootshim has read its configuration again\n");
          }, (error: unknown) => {
            logger.error("the configuration stays as it was: {error}", { error: toShimError(error).message });
          });
        });
      },
      onAccess: ({ cause, ...record }) => {
        logger.info("{method} {path} {status} {durationMs} ms {requestId}", record);
        if (cause !== undefined) logger.error("request {requestId} failed: {cause}", { ...record, cause });
      },
    });
  });
}

/**
 * What the configuration says now of registries, logins, policy, limits and the cache. Root, sockets and libvirt stay.
 *
 * @throws {ShimError} CONFIG_INVALID
 */
async function reload({ settings: before, readSettings, openContext }: Invocation): Promise<Reloaded> {
  const read = await readSettings();
  const { rootDirectory, libvirtUri } = before;
  if (limitsOf(read) !== limitsOf(before)) {
    logger.warn("the configuration's [api] has changed: that takes effect when the service is started again");
  }
  return {
    context: await openContext(settingsForCallers({ ...read, rootDirectory, libvirtUri })),
    checkReference: (reference) => checkCallerReference(reference, read.api.namedRegistries),
  };
}

/** What cannot change while it serves, to be compared. */
function limitsOf({ api: { namedRegistries: _, ...limits } }: Settings): string {
  return JSON.stringify(limits);
}

function allowedUsers(given: readonly string[]): ReadonlySet<number> | null {
  return given.length === 0 ? null : new Set([0, effectiveUserId(), ...given.map(Number)]);
}

/** @see sd_listen_fds(3) */
function handedDescriptor({ variables, processId }: Environment): { readonly fd: number } | undefined {
  const count = variables["LISTEN_FDS"];
  if (!count || Number(variables["LISTEN_PID"]) !== processId) return undefined;
  if (count === "1") return { fd: LISTEN_FDS_START };
  throw new ShimError("REQUEST_INVALID", `Cannot serve: ${count} sockets were handed over, expected 1`);
}

/** @throws {ShimError} REQUEST_INVALID */
function defaultSocket({ isRoot, variables }: Environment): string {
  if (isRoot) return "/run/bootshim/bootshim.sock";
  const directory = variables["XDG_RUNTIME_DIR"];
  if (directory?.startsWith("/")) return `${directory}/bootshim.sock`;
  throw new ShimError(
    "REQUEST_INVALID",
    "Cannot serve: XDG_RUNTIME_DIR is not set, and no --socket was given",
  );
}

/** @throws {ShimError} REQUEST_INVALID for anything but loopback: there is no way to tell who calls over TCP */
function readLoopback(text: string): { host: string; port: number } {
  const [, host = "", port = ""] = /^\[?([0-9a-f.:]+?)\]?:([0-9]{1,5})$/.exec(text) ?? [];
  const isLoopback = (isIP(host) === 4 && host.startsWith("127.")) || host === "::1";
  if (isLoopback && Number(port) <= 65_535) return { host, port: Number(port) };
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot listen on ${
      JSON.stringify(text)
    }: must be a loopback address with a port, such as 127.0.0.1:8080`,
  );
}
