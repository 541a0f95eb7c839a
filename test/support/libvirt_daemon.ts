import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/**
 * Real libvirt daemons for tests; a machine without them fails the test, it is never skipped.
 *
 * Test files may run at the same time: `startLibvirtDaemons` holds a file lock from start to `stop()`, so that the
 * second file waits for the first. One that may be killed is in `private_libvirtd.ts`.
 */

const RUN = "/run/libvirt";
const SYSTEM_SOCKET = `${RUN}/libvirt-sock`;
/** A daemon opens its socket within a second here; a loaded machine may take its time. */
const START_LIMIT_MS = 20_000;
/** Another test file may hold the daemons for as long as it boots guests. */
const LOCK_LIMIT_SECONDS = 300;

export type LibvirtDaemons = {
  /** For `virConnectOpen`. */
  readonly uri: string;
  /** Ends what was started here, and only that. */
  stop(): Promise<void>;
};

/**
 * Gives the machine's own `qemu:///system`: the daemons that answer there, or ones started here. QEMU guests outlive
 * the daemons, so a test destroys its own.
 */
export async function startLibvirtDaemons(): Promise<LibvirtDaemons> {
  const uri = "qemu:///system";
  const lock = await lockDaemons();
  const started: Daemon[] = [];
  async function stop(): Promise<void> {
    for (const daemon of started.reverse()) await daemon.stop();
    await lock.stop();
  }
  try {
    if (await answers(SYSTEM_SOCKET)) return { uri, stop };
    await mkdir(RUN, { recursive: true });
    // virtlogd first: it keeps the guests' consoles
    started.push(await startDaemon("virtlogd", [], { socket: join(RUN, "virtlogd-sock") }));
    started.push(await startSystemLibvirtd());
    return { uri, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

type Daemon = { readonly pid: number; stop(): Promise<void> };

/**
 * Starts the machine's libvirtd. Where `/dev/kvm` is there but not for QEMU's user (a machine without udev), libvirt
 * finds KVM when it probes, cannot use it, and therefore probes again at each call, for half a minute; so libvirtd
 * then runs in a mount namespace in which nobody may use the device, and starts guests without namespaces of their own,
 * as those cannot take such a mount along.
 */
async function startSystemLibvirtd(): Promise<Daemon> {
  const kvm = await stat("/dev/kvm").catch(() => null);
  if (kvm === null || (kvm.mode & 0o060) === 0o060) {
    return startDaemon("libvirtd", [], { socket: SYSTEM_SOCKET });
  }
  const script = 'mount --bind "$0/kvm" /dev/kvm && mount --bind "$0/qemu.conf" /etc/libvirt/qemu.conf && ' +
    "exec libvirtd";
  return startInFolder(async (folder) => {
    await writeFile(join(folder, "kvm"), "", { mode: 0 });
    const settings = await readFile("/etc/libvirt/qemu.conf", "utf8");
    await writeFile(join(folder, "qemu.conf"), `${settings}\nnamespaces = []\n`);
    const parameters = ["--mount", "--propagation", "slave", "sh", "-c", script, folder];
    return startDaemon("unshare", parameters, { socket: SYSTEM_SOCKET });
  });
}

/** Starts a daemon that needs a folder of its own, which goes with it. */
async function startInFolder(start: (folder: string) => Promise<Daemon>): Promise<Daemon> {
  const folder = await mkdtemp(join(tmpdir(), "bootshim-libvirtd-"));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const daemon = await start(folder);
    return { pid: daemon.pid, stop: () => daemon.stop().finally(remove) };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Runs a daemon in the foreground until its socket answers. */
async function startDaemon(
  command: string,
  parameters: readonly string[],
  options: { readonly socket: string },
): Promise<Daemon> {
  // One that was killed leaves its socket behind
  await rm(options.socket, { force: true });
  const child = spawn(command, parameters, { stdio: ["ignore", "ignore", "pipe"] });
  const log: string[] = [];
  child.stderr.setEncoding("utf8").on("data", (text) => log.push(text));
  const ended = once(child, "exit");
  async function stop(): Promise<void> {
    child.kill("SIGTERM");
    await ended;
  }
  try {
    await Promise.race([answersAfterStart(options.socket), failsWhenEnded(ended, command)]);
    if (child.pid === undefined) throw new Error("it has no pid");
    return { pid: child.pid, stop };
  } catch (error) {
    if (child.pid !== undefined) await stop();
    throw new Error(`Cannot start ${command}: ${log.join("") || error}`, { cause: error });
  }
}

async function failsWhenEnded(ended: Promise<unknown[]>, command: string): Promise<never> {
  const [status] = await ended;
  throw new Error(`Cannot use ${command}: it ended with status ${status}`);
}

/** Waits until a socket that a daemon is about to make takes connections. */
async function answersAfterStart(socket: string): Promise<void> {
  const end = performance.now() + START_LIMIT_MS;
  // Asked again and again: its file can be watched, but no event tells when the daemon listens on it
  while (!await answers(socket)) {
    if (performance.now() > end) throw new Error(`"${socket}" did not answer within ${START_LIMIT_MS} ms`);
    await delay(20);
  }
}

function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(socket, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}

/** Waits for the other test files that use the machine's daemons; the kernel drops the lock if this one is killed. */
async function lockDaemons(): Promise<{ stop(): Promise<void> }> {
  const file = join(tmpdir(), "bootshim-test-libvirt.lock");
  const holder = spawn("flock", [
    "--wait",
    String(LOCK_LIMIT_SECONDS),
    file,
    "sh",
    "-c",
    "echo locked; exec cat",
  ], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(holder, "exit");
  await Promise.race([once(holder.stdout, "data"), failsWhenEnded(ended, "flock")]);
  return {
    async stop() {
      holder.stdin.end();
      await ended;
    },
  };
}
