import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

import { startDomain } from "../../src/agent/start_domain.ts";
import { ShimError } from "../../src/errors.ts";
import { LibvirtConnection } from "../../src/libvirt/connection.ts";
import { LibvirtSession } from "../../src/libvirt/libvirt_session.ts";
import { LibvirtThread } from "../../src/libvirt/libvirt_thread.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { startPrivateLibvirtd } from "./private_libvirtd.ts";
import { randomWord } from "./random_word.ts";

/*
 * What libvirt's binding does over time: the tests run these with small numbers and assert what must hold; `deno task
 * measure-libvirt` runs them with large ones and prints the figures.
 */

const WORKER = new URL("../../src/libvirt/worker.ts", import.meta.url);

/** A machine with nothing but a CPU: it runs its firmware and finds nothing to boot. */
export function bareDomain(type: "test" | "qemu"): { name: string; uuid: string; xml: string } {
  const [name, uuid] = [`measure-${randomWord()}`, randomUUID()];
  const machine = type === "qemu" ? " arch='x86_64' machine='q35'" : "";
  const xml =
    `<domain type='${type}'><name>${name}</name><uuid>${uuid}</uuid><memory unit='MiB'>64</memory>` +
    `<os><type${machine}>hvm</type></os></domain>`;
  return { name, uuid, xml };
}

/** What the kernel keeps for this OS process. */
function holdings() {
  const rssKib = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    threads: readdirSync("/proc/self/task").length,
    rssMib: Math.round(rssKib / 1024),
  };
}

/** Connects, defines and undefines so many times on one thread; what the process holds after the first tenth and at the end. */
export async function measureCycles(count: number) {
  const thread = new LibvirtThread(WORKER, { callTimeoutMs: 60_000 });
  const { name, xml } = bareDomain("test");
  let early = holdings();
  for (let cycle = 0; cycle < count; cycle++) {
    if (cycle === Math.floor(count / 10)) early = holdings();
    await thread.call("open", "test:///default");
    await thread.call("defineDomain", xml);
    await thread.call("undefineDomain", name);
  }
  const late = holdings();
  await thread.close();
  return { cycles: count, early, late };
}

/** Every QEMU on this host of these UUIDs. */
function qemusOf(uuids: readonly string[]): { uuid: string; pid: number }[] {
  return readdirSync("/proc").filter((entry) => /^\d+$/.test(entry)).flatMap((entry) => {
    try {
      const command = readFileSync(`/proc/${entry}/cmdline`, "latin1");
      const uuid = /^[^\0]*qemu-system/.test(command)
        ? uuids.find((each) => command.includes(each))
        : undefined;
      return uuid === undefined ? [] : [{ uuid, pid: Number(entry) }];
    } catch {
      // It ended meanwhile
      return [];
    }
  });
}

/**
 * Restarts and kills a libvirtd under a session while machines are started and ended through it.
 *
 * @returns how long each time from the daemon's answer to the session's, operations by outcome, the most QEMUs one
 * machine ever had, and QEMUs that libvirt does not know of at the end
 */
export async function measureRestarts(rounds: number) {
  const daemon = await startPrivateLibvirtd();
  let connectedMs = 0;
  let lostMs = 0;
  const session = LibvirtSession.start(daemon.uri, {
    callTimeoutMs: 60_000,
    onNotice: (notice) => {
      if (notice.kind === "connected") connectedMs = performance.now();
      if (notice.kind === "disconnected") lostMs = performance.now();
    },
  });
  const domains = [bareDomain("qemu"), bareDomain("qemu")];
  const uuids = domains.map(({ uuid }) => uuid);
  const outcomes: Record<string, number> = {};
  let mostQemus = 0;
  let isOver = false;

  async function operate({ name, xml }: typeof domains[number]): Promise<void> {
    while (!isOver) {
      const steps = [
        () =>
          startDomain({
            id: name,
            xml,
            connect: (body) => body(session),
            find: (libvirt) => libvirt.findDomain(name),
            check: () => Promise.resolve(),
          }, { watchMs: 0 }),
        () => session.destroyDomain(name),
      ];
      for (const step of steps) {
        const outcome = await step().then(
          () => "done",
          (error) => error instanceof ShimError ? error.code : "other",
        );
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        if (outcome !== "done") await delay(50);
        for (const uuid of uuids) {
          mostQemus = Math.max(mostQemus, qemusOf([uuid]).length);
        }
      }
    }
  }

  const noticedMs: number[] = [];
  const reconnectedMs: number[] = [];
  try {
    await session.whenConnected(60_000);
    const operating = domains.map(operate);
    for (let round = 0; round < rounds; round++) {
      await delay(200 + Math.random() * 800);
      const killedMs = performance.now();
      await daemon.kill(round % 2 === 0 ? "SIGKILL" : "SIGTERM");
      await daemon.start();
      const answeredMs = performance.now();
      while (connectedMs < killedMs) await delay(5);
      noticedMs.push(Math.max(0, lostMs - killedMs));
      reconnectedMs.push(Math.max(0, connectedMs - answeredMs));
    }
    isOver = true;
    await Promise.all(operating);
    await session.whenConnected(60_000);
    // What is left is ended through libvirt; whatever it cannot end is an orphan
    const left = await session.listDomains();
    for (const { name, id } of left) if (id !== null) await session.destroyDomain(name);
    const descriptors = holdings().descriptors;
    return {
      rounds,
      noticedMs: spread(noticedMs),
      reconnectedMs: spread(reconnectedMs),
      outcomes,
      mostQemus,
      orphans: qemusOf(uuids).length,
      descriptors,
    };
  } finally {
    isOver = true;
    await session.close();
    await daemon.stop();
  }
}

/** The main thread's delays while libvirtd is frozen under calls and a registry never answers. */
export async function measureFrozen(durationMs: number) {
  const daemon = await startPrivateLibvirtd();
  const sockets = new Set<Socket>();
  const blackHole = createServer((socket) => void sockets.add(socket));
  await new Promise<void>((resolve) => blackHole.listen(0, "127.0.0.1", resolve));
  const address = blackHole.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const session = LibvirtSession.start(daemon.uri, { callTimeoutMs: durationMs / 4 });
  const client = new RegistryClient({ host: `127.0.0.1:${port}`, repository: "os/demo" });
  const abort = new AbortController();
  const delaysMs: number[] = [];
  try {
    await session.whenConnected(60_000);
    const once = await LibvirtConnection.open(daemon.uri, { callTimeoutMs: durationMs / 2 });
    daemon.freeze();
    const hung = [once.listDomains(), once.version(), session.listDomains(), session.version()];
    const fetches = Array.from({ length: 8 }, () => client.resolve("1", { signal: abort.signal }));
    const settling = Promise.allSettled([...hung, ...fetches]);
    const end = performance.now() + durationMs;
    while (performance.now() < end) {
      const before = performance.now();
      await delay(1);
      delaysMs.push(performance.now() - before - 1);
      // Answered at once all the while
      if (delaysMs.length % 100 === 0) await session.findDomain("any").catch(() => {});
    }
    daemon.thaw();
    abort.abort();
    const settled = await settling;
    await once.close();
    return {
      samples: delaysMs.length,
      delayMs: spread(delaysMs),
      hungCallsFailed: settled.slice(0, hung.length).filter(({ status }) => status === "rejected").length,
      blackHoled: sockets.size,
    };
  } finally {
    abort.abort();
    await session.close();
    await client.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => blackHole.close(resolve));
    await daemon.stop();
  }
}

function spread(valuesMs: readonly number[]) {
  const sorted = [...valuesMs].sort((one, two) => one - two);
  const at = (share: number) => Math.round((sorted[Math.floor(share * (sorted.length - 1))] ?? 0) * 10) / 10;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}
