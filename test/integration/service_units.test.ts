/** The units in packaging/, and what a service manager does with the service: hand it a socket, have it read anew. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { randomWord } from "../support/random_word.ts";
import { ask, startService } from "../support/service.ts";

const CHECKOUT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

let work: string;
beforeEach(async () => {
  work = await mkdtemp(join(tmpdir(), "bs-"));
});
afterEach(() => rm(work, { recursive: true, force: true }));

describe("packaging/", () => {
  it("holds units that systemd takes without a word", async () => {
    const units = ["bootshim.service", "bootshim.socket"];
    for (const name of units) {
      const text = await readFile(join(CHECKOUT, "packaging", name), "utf8");
      // Installed by a package; here it is where it is.
      await writeFile(
        join(work, name),
        text.replace("/usr/bin/bootshim", join(CHECKOUT, "scripts/bootshim")),
      );
    }
    const { stderr } = await run("systemd-analyze", ["verify", ...units.map((name) => join(work, name))]);
    expect(stderr.split("\n").filter((line) => line.includes("bootshim"))).toEqual([]);
  });

  it("names only the socket that the service takes by itself", async () => {
    const text = await readFile(join(CHECKOUT, "packaging/bootshim.socket"), "utf8");
    expect(text).toContain("ListenStream=/run/bootshim/bootshim.sock\n");
    expect(text).toContain("SocketMode=0660\n");
  });
});

describe("a service manager", () => {
  it("hands over the socket it listens on", async () => {
    const socketPath = join(work, "s");
    const child = spawn("systemd-socket-activate", [
      ...["--listen", socketPath, "--setenv", `BOOTSHIM_ROOT=${join(work, "root")}`],
      ...["--setenv", "BOOTSHIM_CONFIG=/dev/null", "--setenv", `PATH=${process.env["PATH"]}`],
      ...["--setenv", `HOME=${work}`, join(CHECKOUT, "scripts/bootshim"), "serve"],
    ], { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => said += text);
    const ended = once(child, "close");
    try {
      for (let tries = 0; !said.includes("Listening on"); tries++) {
        if (tries > 500) throw new Error(`nobody listens: ${said}`);
        await wait(20);
      }
      // The first caller is what starts it.
      expect(await ask(socketPath, "/healthz")).toMatchObject({ status: 200 });
      expect(said).toContain("serves on the socket it was given");
    } finally {
      process.kill(child.pid ?? 0, "SIGTERM");
    }
    expect(await ended).toEqual([0, null]);
  });

  it("has it read its configuration again by SIGHUP; a broken one changes nothing", async () => {
    const config = join(work, "config.toml");
    const host = `registry-${randomWord()}.invalid`;
    const deny = (list: string) => writeFile(config, `[policy]\ndeny = [${list}]\n`);
    await deny("");
    const service = await startService({
      root: join(work, "root"),
      environment: { BOOTSHIM_CONFIG: config },
    });
    const codeOf = async () => {
      const { json } = await service.ask("/v1/prepare", {
        body: { reference: `${host}/x:1`, pull: "missing" },
      });
      return typeof json === "object" && json !== null && "code" in json ? json.code : undefined;
    };
    const said = async (words: string) => {
      for (let tries = 0; !service.said().includes(words); tries++) {
        if (tries > 1000) throw new Error(`it did not say "${words}": ${service.said()}`);
        await wait(20);
      }
    };
    try {
      expect(await codeOf()).toBe("REGISTRY_UNAVAILABLE");
      await deny(`"${host}/*"`);
      process.kill(service.pid, "SIGHUP");
      await said("has read its configuration again");
      expect(await codeOf()).toBe("POLICY_DENIED");
      await writeFile(config, "[policy]\ndenied = []\n");
      process.kill(service.pid, "SIGHUP");
      await said('key "policy.denied"');
      expect(await codeOf()).toBe("POLICY_DENIED");
    } finally {
      expect(await service.stop()).toBe(0);
    }
  });
});
