import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { captureProgram, requireSuccess } from "../../../src/qemu/capture_program.ts";
import { superviseProgram } from "../../../src/qemu/host_program.ts";
import { findProgram, STANDARD_ENVIRONMENT } from "../../../src/qemu/program_path.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "bootshim-host-program-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const sh = (script: string) => ["sh", "-c", script];
const quiet = { onStdout: () => {} };
const captured = { action: "try", timeoutMs: 10_000, maxOutputBytes: 10_000 };

const isRunning = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    // ESRCH: what the tests hope for.
    return false;
  }
};

describe("superviseProgram", () => {
  it("tells exit code, and the end of standard error without control characters", async () => {
    const exit = await superviseProgram(sh(`printf 'first\\n\\033[31mlast\\007\\n' >&2; exit 7`), quiet);
    expect(exit).toEqual({ exitCode: 7, killedBy: null, stderrTail: "first\n[31mlast", endedBy: "itself" });
  });

  it("keeps at most 2000 characters of standard error, the last ones", async () => {
    const exit = await superviseProgram(sh("head -c 100000 /dev/zero | tr '\\0' x >&2; echo end >&2"), quiet);
    expect([exit.stderrTail.length, exit.stderrTail.slice(-5)]).toEqual([2000, "xxend"]);
  });

  it("gives the program its environment and nothing of ours", async () => {
    const environment = { ...STANDARD_ENVIRONMENT, TMPDIR: "/somewhere" };
    const output = await captureProgram(["env"], { ...captured, environment });
    expect(Object.fromEntries(output.trim().split("\n").map((line) => line.split("=")))).toEqual(environment);
  });

  it("passes arguments untouched: there is no shell", async () => {
    const odd = ["$(id)", "a b", "'", "", "*", "-n", "ä\n"];
    expect(await captureProgram(["printf", "%s|", ...odd], captured)).toBe(
      odd.map((text) => `${text}|`).join(""),
    );
  });

  it("sets the limits of address space, processor time, file size and core dumps", async () => {
    const limits = { addressSpaceBytes: 512 * 1024 ** 2, cpuSeconds: 7, fileSizeBytes: 1024 ** 2 };
    const output = await captureProgram(["cat", "/proc/self/limits"], { ...captured, limits });
    const soft = (name: string) => new RegExp(`^${name} +(\\S+)`, "m").exec(output)?.[1];
    expect(["Max address space", "Max cpu time", "Max file size", "Max core file size"].map(soft)).toEqual([
      String(limits.addressSpaceBytes),
      "7",
      String(limits.fileSizeBytes),
      "0",
    ]);
  });

  it("ends a program by SIGTERM when its time is over", async () => {
    const exit = await superviseProgram(["sleep", "60"], { ...quiet, timeoutMs: 50 });
    expect(exit).toEqual({ exitCode: null, killedBy: "SIGTERM", stderrTail: "", endedBy: "timeout" });
  });

  it("waits longer than any timer can", async () => {
    const exit = await superviseProgram(["sleep", "0.05"], { ...quiet, timeoutMs: 2 ** 40 });
    expect(exit).toEqual({ exitCode: 0, killedBy: null, stderrTail: "", endedBy: "itself" });
  });

  it("kills a program that ignores SIGTERM after the grace time", async () => {
    const pidFile = join(folder, "stubborn");
    // Signals only once the trap stands: a timer could be faster than a busy host.
    const controller = new AbortController();
    const exit = await superviseProgram(
      sh(`trap '' TERM; echo $$ > ${pidFile}; echo ready; while :; do read -t 1 x < /dev/zero; done`),
      { onStdout: () => controller.abort(), signal: controller.signal, graceMs: 100 },
    );
    expect(exit).toMatchObject({ killedBy: "SIGKILL", endedBy: "abort" });
    expect(isRunning(Number(await readFile(pidFile, "utf8")))).toBe(false);
  });

  it("ends a program although its output's consumer never comes back", async () => {
    const controller = new AbortController();
    const exit = await superviseProgram(sh("while :; do echo more; done"), {
      onStdout: () => {
        controller.abort();
        return new Promise<void>(() => {});
      },
      signal: controller.signal,
      graceMs: 100,
    });
    expect(exit).toMatchObject({ exitCode: null, endedBy: "abort" });
  });

  it("does not start anything when the signal has aborted already", async () => {
    const trace = join(folder, "never");
    const exit = await superviseProgram(sh(`touch ${trace}`), { ...quiet, signal: AbortSignal.abort() });
    expect(exit).toEqual({ exitCode: null, killedBy: null, stderrTail: "", endedBy: "abort" });
    await expect(readFile(trace)).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("ends the program and rejects with the consumer's own error", async () => {
    const failure = new Error("the consumer is full");
    const pidFile = join(folder, "consumed");
    const run = superviseProgram(sh(`echo $$ > ${pidFile}; echo text; exec sleep 60`), {
      onStdout: () => Promise.reject(failure),
    });
    await expect(run).rejects.toBe(failure);
    expect(isRunning(Number(await readFile(pidFile, "utf8")))).toBe(false);
  });

  it("lets the program wait while the consumer is busy, and loses nothing", async () => {
    let sizeBytes = 0;
    const exit = await superviseProgram(sh("head -c 1000000 /dev/zero"), {
      onStdout: async (bytes) => {
        await new Promise((resolve) => setTimeout(resolve, 1));
        sizeBytes += bytes.length;
      },
    });
    expect([exit.exitCode, sizeBytes]).toEqual([0, 1_000_000]);
  });

  it("is HYPERVISOR_UNAVAILABLE with the package to install when the program is missing", async () => {
    const environment = { PATH: folder, LANG: "C" };
    await expect(superviseProgram(["qemu-img", "--version"], { ...quiet, environment })).rejects
      .toMatchObject({
        code: "HYPERVISOR_UNAVAILABLE",
        message: `Cannot run "qemu-img": no executable by that name in "${folder}"`,
        details: { program: "qemu-img", remedy: "apt-get install qemu-utils" },
      });
  });

  it("is HYPERVISOR_UNAVAILABLE when the system refuses the start", async () => {
    // More than the kernel takes for one argument (128 KiB): E2BIG.
    const run = superviseProgram(["true", "x".repeat(200_000)], quiet);
    await expect(run).rejects.toMatchObject({ code: "HYPERVISOR_UNAVAILABLE" });
  });
});

describe("findProgram", () => {
  it("takes executable files only, from the environment's PATH or by absolute path", async () => {
    const program = join(folder, "program");
    await writeFile(program, "#!/bin/sh\n");
    const environment = { PATH: `/nowhere:${folder}:/bin`, LANG: "C" };
    expect(await findProgram("program", environment)).toBe(null);
    await chmod(program, 0o755);
    expect(await findProgram("program", environment)).toBe(program);
    expect(await findProgram(program)).toBe(program);
    expect(await findProgram("./program", environment)).toBe(null);
    expect(await findProgram("..", environment)).toBe(null);
  });
});

describe("requireSuccess", () => {
  const exit = { exitCode: 1, killedBy: null, stderrTail: 'no "disk"', endedBy: "itself" } as const;

  it("lets only exit code 0 pass, and names each other end", () => {
    const judge = (change: Partial<Parameters<typeof requireSuccess>[0]>) => () =>
      requireSuccess({ ...exit, ...change }, { action: "boot", timeoutMs: 9 });
    expect(judge({ exitCode: 0 })).not.toThrow();
    expect(judge({})).toThrow(
      expect.objectContaining({
        code: "QEMU_FAILED",
        message: 'Cannot boot: exit code is 1, expected exit code 0; its last words were "no \\"disk\\""',
        details: { exitCode: 1, killedBy: null, stderrTail: 'no "disk"' },
      }),
    );
    expect(judge({ exitCode: null, killedBy: "SIGSEGV", stderrTail: "" })).toThrow(
      expect.objectContaining({
        code: "QEMU_FAILED",
        message: "Cannot boot: it was ended by SIGSEGV, expected exit code 0; it said nothing",
      }),
    );
    expect(judge({ endedBy: "timeout", exitCode: 0 })).toThrow(
      expect.objectContaining({ code: "HYPERVISOR_TIMEOUT" }),
    );
    expect(judge({ endedBy: "abort", exitCode: 0 })).toThrow(expect.objectContaining({ code: "CANCELLED" }));
  });
});

describe("captureProgram", () => {
  it("refuses output beyond its limit and ends the program", async () => {
    await expect(captureProgram(sh("while :; do echo more; done"), captured)).rejects.toMatchObject({
      code: "LIMIT_EXCEEDED",
      message: "Cannot try: more than 10000 bytes of output, which is the limit",
    });
  });
});
