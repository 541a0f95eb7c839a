import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readdirSync } from "node:fs";
import { createServer } from "node:net";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

import { LibvirtConnection } from "../../src/libvirt/connection.ts";
import { failureOf } from "../support/failures.ts";

const PROGRAM = fileURLToPath(new URL("../support/left_open_connection.ts", import.meta.url));

/** Runs a TypeScript file in the runtime this test runs in; rejects unless it exits with 0 within 10 s. */
function runProgram(...parameters: string[]): Promise<{ stdout: string; stderr: string }> {
  const runtime = process.versions["deno"] === undefined ? [] : ["run", "-A"];
  return promisify(execFile)(process.execPath, [...runtime, ...parameters], { timeout: 10_000 });
}

/** The largest pause of the main thread while something goes on, in ms. */
async function longestPauseMs(work: Promise<unknown>): Promise<number> {
  let last = performance.now();
  let longest = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }, 1);
  try {
    await work;
  } finally {
    clearInterval(timer);
  }
  return longest;
}

describe("LibvirtConnection on test:///default", () => {
  it("reads versions, capabilities, domains and XML of libvirt's own mock driver", async () => {
    const connection = await LibvirtConnection.open("test:///default");
    try {
      expect(await connection.version()).toEqual({
        libraryVersion: expect.stringMatching(/^\d+\.\d+\.\d+$/),
        hypervisorVersion: "0.0.2",
      });
      expect(await connection.capabilitiesXml()).toMatch(/^<capabilities>[^]*<\/capabilities>\n$/);
      const test = {
        name: "test",
        uuid: expect.any(String),
        state: "running",
        shutOffReason: null,
        id: 1,
        isPersistent: true,
      };
      expect(await connection.listDomains()).toEqual([test]);
      expect(await connection.findDomain("test")).toEqual(test);
      expect(await connection.findDomain(`vm-${randomUUID()}`)).toBe(null);
      expect(await connection.domainXml("test")).toMatch(
        /^<domain type='test' id='1'>[^]*<name>test<\/name>/,
      );
      await connection.destroyDomain("test");
      expect(await connection.findDomain("test")).toEqual({
        ...test,
        state: "shut off",
        shutOffReason: "destroyed",
        id: null,
      });
    } finally {
      await connection.close();
    }
  });

  it("LV05 gives each of 64 parallel failing calls its own error", async () => {
    const connection = await LibvirtConnection.open("test:///default");
    try {
      const elements = Array.from({ length: 64 }, () => `e${randomUUID()}`);
      const failures = await Promise.all(elements.map((element, index) =>
        failureOf(
          index % 2 === 0
            ? connection.defineDomain(
              `<domain type='test'><name>x</name><memory>1</memory><os><type>hvm</type></os><${element}/></domain>`,
            )
            : connection.startDomain(element),
        )
      ));
      expect(failures.map(({ code, details }) => [code, details["libvirtCode"]])).toEqual(
        elements.map((_, index) => index % 2 === 0 ? ["DOMAIN_INVALID", 92] : ["MACHINE_NOT_FOUND", 42]),
      );
      for (const [index, { message }] of failures.entries()) expect(message).toContain(elements[index]);
    } finally {
      await connection.close();
    }
  });

  it("LV08 takes names of other scripts", async () => {
    const connection = await LibvirtConnection.open("test:///default");
    const name = `машина-仮想-${randomUUID()}`;
    try {
      const status = await connection.defineDomain(
        `<domain type='test'><name>${name}</name><memory>1024</memory><os><type>hvm</type></os></domain>`,
      );
      expect({ name: status.name, state: status.state, id: status.id }).toEqual({
        name,
        state: "shut off",
        id: null,
      });
      expect(await connection.findDomain(name)).toEqual(status);
    } finally {
      await connection.close();
    }
  });

  it("LV06 a program that leaves its connection open ends with 0 and a clean stderr", async () => {
    const runs = Array.from({ length: 5 }, () => runProgram(PROGRAM, "test:///default"));
    expect(await Promise.all(runs)).toEqual(runs.map(() => ({ stdout: "1\n", stderr: "" })));
  });

  it("closes 50 connections without leaving their threads behind", async () => {
    const threads = () => readdirSync("/proc/self/task").length;
    for (let round = 0; round < 5; round++) await (await LibvirtConnection.open("test:///default")).close();
    const before = threads();
    for (let round = 0; round < 50; round++) await (await LibvirtConnection.open("test:///default")).close();
    // A thread's end is seen a moment after its exit event
    expect(threads()).toBeLessThan(before + 20);
  });
});

describe("LibvirtConnection without a daemon", () => {
  it("LV02 fails at once, with a remedy and nothing on stderr", async () => {
    const uri = `qemu:///system?socket=${join(tmpdir(), randomUUID())}`;
    const start = performance.now();
    const error = await failureOf(LibvirtConnection.open(uri));
    expect(performance.now() - start).toBeLessThan(2_000);
    expect({ code: error.code, details: error.details }).toEqual({
      code: "HYPERVISOR_UNAVAILABLE",
      details: {
        libvirtCode: 38,
        libvirtDomain: 7,
        remedy: expect.stringContaining("systemctl start libvirtd"),
      },
    });
    expect(error.message).toMatch(
      /^Cannot open connection "qemu:.*": libvirt reports "Failed to connect socket to '/,
    );
    expect(await runProgram(PROGRAM, uri)).toEqual({ stdout: "HYPERVISOR_UNAVAILABLE\n", stderr: "" });
  });

  it("gives CONFIG_INVALID for a malformed URI", async () => {
    const error = await failureOf(LibvirtConnection.open("::::"));
    expect([error.code, error.message]).toEqual([
      "CONFIG_INVALID",
      'Cannot open connection "::::": libvirt reports "internal error: Unable to parse URI ::::"',
    ]);
  });

  it("LV04 gives up a daemon that takes the connection and never speaks; the thread and its socket go", async () => {
    const folder = await mkdtemp(join(tmpdir(), "bootshim-mute-"));
    const socket = join(folder, "socket");
    const closed: Promise<unknown>[] = [];
    const server = createServer((peer) => {
      closed.push(new Promise((resolve) => peer.on("close", resolve).resume()));
    });
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      const uri = `qemu:///system?socket=${socket}`;
      const opening = failureOf(LibvirtConnection.open(uri, { callTimeoutMs: 2_000 }));
      expect(await longestPauseMs(opening)).toBeLessThan(1_000);
      const error = await opening;
      expect([error.code, error.message]).toEqual([
        "HYPERVISOR_TIMEOUT",
        'Cannot finish libvirt call "open": no answer within 2000 ms',
      ]);
      // The hung call really ended: its end of the connection is closed while this OS process goes on
      await Promise.all(closed);
      expect(closed.length).toBe(1);
      expect(await runProgram(PROGRAM, uri, "300")).toEqual({ stdout: "HYPERVISOR_TIMEOUT\n", stderr: "" });
    } finally {
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true });
    }
  });
});
