import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, mkdtemp, open, readFile, rm, watch, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runQemu } from "../../src/qemu/qemu_process.ts";
import { makeGuestPart } from "../support/guest_image.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "bootshim-qemu-process-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A machine without anything to boot: it stays until somebody ends it. */
const idle = (pidFile: string) => [
  "qemu-system-x86_64",
  ...["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", "tcg", "-m", "16M"],
  ...["-serial", "stdio", "-pidfile", pidFile],
];

const readPid = async (pidFile: string) => Number(await readFile(pidFile, "utf8"));

/** Also true for a process that ended and waits for its parent: tests use it on children that have been waited for. */
const isRunning = (pid: number) => existsSync(`/proc/${pid}`);

describe("runQemu", () => {
  it("gives the console's bytes as they come, keeps them in the log, and ends well when the guest powers off", async () => {
    const word = `w${randomBytes(6).toString("hex")}`;
    const [kernel, initramfs] = await Promise.all([
      makeGuestPart("kernel"),
      makeGuestPart("initramfs", { word }),
    ]);
    const consoleLogPath = join(folder, "console.log");
    const chunks: Uint8Array[] = [];
    const result = await runQemu(
      [
        "qemu-system-x86_64",
        ...[
          "-nodefaults",
          "-no-user-config",
          "-display",
          "none",
          "-machine",
          "q35",
          "-accel",
          "tcg",
          "-m",
          "512M",
        ],
        ...["-serial", "stdio", "-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 quiet"],
      ],
      { stdin: "ignore", timeoutMs: 60_000, consoleLogPath, onConsole: (bytes) => void chunks.push(bytes) },
    );
    const text = Buffer.concat(chunks).toString("utf8");
    expect(text).toContain(`BOOTSHIM-GUEST word=${word}\r\n`);
    expect(await readFile(consoleLogPath, "utf8")).toBe(text);
    expect(result).toEqual({ stderrTail: expect.any(String) });
  });

  it("is HYPERVISOR_TIMEOUT when the time is over, and QEMU is gone", async () => {
    const pidFile = join(folder, "timeout.pid");
    await expect(runQemu(idle(pidFile), { stdin: "ignore", timeoutMs: 700 })).rejects.toMatchObject({
      code: "HYPERVISOR_TIMEOUT",
      message: 'Cannot run "qemu-system-x86_64": still running after 700 ms, which was its limit',
      details: { timeoutMs: 700, stderrTail: expect.stringContaining("terminating on signal 15") },
    });
    // QEMU takes its pid file away when it ends in order.
    expect(existsSync(pidFile)).toBe(false);
  });

  it("is CANCELLED when the signal aborts, and QEMU is gone", async () => {
    const pidFile = join(folder, "abort.pid");
    const controller = new AbortController();
    const run = runQemu(idle(pidFile), { stdin: "ignore", signal: controller.signal });
    const ended = expect(run).rejects.toMatchObject({ code: "CANCELLED" });
    await waitForFile(pidFile);
    const pid = await readPid(pidFile);
    expect(isRunning(pid)).toBe(true);
    controller.abort();
    await ended;
    expect(isRunning(pid)).toBe(false);
  });

  it("is QEMU_FAILED with QEMU's last words when it refuses its arguments", async () => {
    await expect(runQemu(["qemu-system-x86_64", "-machine", "steam"], { stdin: "ignore" })).rejects
      .toMatchObject({
        code: "QEMU_FAILED",
        message: expect.stringContaining("unsupported machine type"),
        details: {
          exitCode: 1,
          killedBy: null,
          stderrTail: expect.stringContaining("unsupported machine type"),
        },
      });
  });

  it("is HYPERVISOR_UNAVAILABLE with the package to install when QEMU is missing", async () => {
    const environment = { PATH: folder, LANG: "C" };
    await expect(runQemu(["qemu-system-aarch64"], { stdin: "ignore", environment })).rejects.toMatchObject({
      code: "HYPERVISOR_UNAVAILABLE",
      details: { remedy: "apt-get install qemu-system-arm" },
    });
  });

  it("leaves no QEMU behind when our own process is killed by SIGKILL", async () => {
    const pidFile = join(folder, "orphan.pid");
    const module = new URL("../../src/qemu/qemu_process.ts", import.meta.url).href;
    const program = join(folder, "parent.ts");
    await writeFile(
      program,
      `import { runQemu } from ${JSON.stringify(module)};
await runQemu(${JSON.stringify(idle(pidFile))}, { stdin: "ignore" });
`,
    );
    const flags = "deno" in process.versions ? ["run", "-A", "--no-config"] : [];
    const parent = spawn(process.execPath, [...flags, program], { stdio: "ignore" });
    const parentEnd = once(parent, "exit");
    await waitForFile(pidFile);
    const pid = await readPid(pidFile);
    expect(parent.pid).not.toBe(pid);
    parent.kill("SIGKILL");
    await parentEnd;
    await expect.poll(() => stateOf(pid), { timeout: 5_000 }).toBe("gone");
  });

  it("starts QEMU with three variables in its environment and no descriptor of ours", async () => {
    const fake = join(folder, "qemu-fake");
    await writeFile(
      fake,
      '#!/bin/sh\ntr "\\0" "\\n" < /proc/self/environ; ls -l /proc/self/fd | grep -c parent.lock\n',
    );
    await chmod(fake, 0o755);
    const lock = join(folder, "parent.lock");
    await writeFile(lock, "");
    const held = await open(lock, "r");
    try {
      let text = "";
      const environment = { PATH: "/usr/bin:/bin", LANG: "C", TMPDIR: folder };
      const onConsole = (bytes: Uint8Array) => void (text += Buffer.from(bytes).toString());
      // grep -c counts none, and says so by its exit code too.
      await expect(runQemu([fake], { stdin: "ignore", environment, onConsole })).rejects.toMatchObject({
        details: { exitCode: 1 },
      });
      const lines = text.trim().split("\n");
      expect(lines.pop()).toBe("0");
      // The shell that runs the fake adds PWD.
      const names = lines.map((line) => line.split("=")[0]).filter((name) => name !== "PWD");
      expect(names.sort()).toEqual(["LANG", "PATH", "TMPDIR"]);
    } finally {
      await held.close();
    }
  });
});

async function waitForFile(path: string): Promise<void> {
  const giveUp = AbortSignal.timeout(20_000);
  const changes = watch(folder, { signal: giveUp });
  // Not empty: QEMU makes its pid file first and fills it then.
  const isThere = async () => existsSync(path) && (await readFile(path, "utf8")) !== "";
  if (await isThere()) return;
  for await (const _ of changes) if (await isThere()) return;
}

/** A killed orphan belongs to init, which may take its time to collect it: a zombie is as good as gone. */
async function stateOf(pid: number): Promise<string> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "State:\tX");
  const state = /^State:\t(\w)/m.exec(status)?.[1] ?? "?";
  return state === "X" || state === "Z" ? "gone" : state;
}
