import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** A loaded machine may take its time. */
const START_LIMIT_MS = 30_000;

/** A libvirtd that may be killed, frozen and started again; its definitions and guests outlive it, not `stop()`. */
export type PrivateLibvirtd = {
  /** For `virConnectOpen`. */
  readonly uri: string;
  readonly socket: string;
  /** Where its files lie for whoever is outside: `/proc/PID/root`. */
  readonly root: string;
  readonly pid: number;
  /** Ends the daemon as the signal does; what it left stays. */
  kill(signal: "SIGTERM" | "SIGKILL"): Promise<void>;
  /** Starts it again. With a wrapper, as `wrapper... libvirtd ...`. */
  start(wrapper?: readonly string[]): Promise<void>;
  freeze(): void;
  thaw(): void;
  /** Runs a program among its files, as virsh on its guests' logs. */
  run(command: string, ...parameters: string[]): ChildProcess;
  /** Ends the daemon and every process in its mount namespace: guests, too. */
  stop(): Promise<void>;
};

/**
 * Prepares the folders: its own definitions, sockets, logs and state; the host's `/dev/kvm` is not for its guests, as
 * libvirt finds a KVM that does not work and then probes it again at each call, for half a minute.
 */
const NAMESPACE = 'for folder in etc run var/lib var/cache var/log; do mkdir -p "/$folder/libvirt" && ' +
  'mount -t tmpfs -o mode=755 tmpfs "/$folder/libvirt" || exit; done; mkdir /etc/libvirt/qemu; ' +
  'cp "$0/qemu.conf" /etc/libvirt/qemu.conf; [ ! -e /dev/kvm ] || mount --bind "$0/kvm" /dev/kvm || exit; ' +
  "echo ready; exec cat";

/**
 * Starts a libvirtd that sees no other one and that nobody else uses: it lives in a mount namespace with folders of its
 * own, and only its socket is seen from outside.
 */
export async function startPrivateLibvirtd(): Promise<PrivateLibvirtd> {
  const folder = await mkdtemp(join(tmpdir(), "bootshim-libvirtd-"));
  await chmod(folder, 0o755);
  const socket = join(folder, "libvirt-sock");
  await writeFile(join(folder, "kvm"), "", { mode: 0 });
  // Guests without namespaces of their own: those could not take the mounts along
  await writeFile(join(folder, "qemu.conf"), 'namespaces = []\nstdio_handler = "file"\n');
  await writeFile(join(folder, "conf"), `unix_sock_dir = "${folder}"\nauth_unix_rw = "none"\n`);
  // Holds the namespace while no daemon runs
  const holder = spawn("unshare", ["--mount", "sh", "-c", NAMESPACE, folder], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const held = once(holder, "exit");
  await Promise.race([
    once(holder.stdout, "data"),
    held.then(() => Promise.reject(new Error("Cannot make a mount namespace"))),
  ]);
  const enter = ["--mount", "--target", String(holder.pid)];
  let daemon: ChildProcess | null = null;

  async function start(wrapper: readonly string[] = []): Promise<void> {
    // One that was killed leaves its socket behind
    await rm(socket, { force: true });
    const log: string[] = [];
    const child = spawn("nsenter", [
      ...enter,
      ...wrapper,
      "libvirtd",
      "--config",
      join(folder, "conf"),
      "--pid-file",
      join(folder, "pid"),
    ], { stdio: ["ignore", "ignore", "pipe"] });
    child.stderr.setEncoding("utf8").on("data", (text) => log.push(text));
    daemon = child;
    const end = performance.now() + START_LIMIT_MS;
    while (!await answers(socket)) {
      if (child.exitCode !== null || performance.now() > end) {
        throw new Error(`Cannot start libvirtd: ${log.join("")}`);
      }
      await delay(20);
    }
  }
  function running(): { readonly pid: number; readonly child: ChildProcess } {
    if (daemon?.pid === undefined) throw new Error("libvirtd does not run");
    return { pid: daemon.pid, child: daemon };
  }
  async function kill(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const { pid, child } = running();
    daemon = null;
    const ended = once(child, "exit");
    if (child.exitCode !== null || child.signalCode !== null) return;
    process.kill(pid, signal);
    // One that is frozen is to end, too
    process.kill(pid, "SIGCONT");
    await ended;
  }
  async function stop(): Promise<void> {
    if (daemon !== null) await kill("SIGKILL");
    // Guests: whatever else lives in the namespace
    await once(
      spawn("sh", [
        "-c",
        'ours=$(readlink "/proc/$0/ns/mnt"); for each in /proc/[0-9]*; do [ "${each#/proc/}" = "$0" ] || ' +
        '[ "$(readlink "$each/ns/mnt")" != "$ours" ] || kill -KILL "${each#/proc/}"; done 2>/dev/null',
        String(holder.pid),
      ]),
      "exit",
    );
    holder.stdin.end();
    await held;
    await rm(folder, { recursive: true, force: true });
  }
  try {
    await start();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    uri: `qemu:///system?socket=${socket}`,
    socket,
    root: `/proc/${holder.pid}/root`,
    get pid() {
      return running().pid;
    },
    kill,
    start,
    freeze: () => void process.kill(running().pid, "SIGSTOP"),
    thaw: () => void process.kill(running().pid, "SIGCONT"),
    run: (command, ...parameters) => spawn("nsenter", [...enter, command, ...parameters]),
    stop,
  };
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
