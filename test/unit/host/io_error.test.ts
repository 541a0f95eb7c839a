import { constants } from "node:fs";
import { describe, expect, it } from "vitest";
import { ShimError } from "../../../src/errors.ts";
import { CREATE_NEW, nodeFileSystem, READ_EXISTING, withOpenFile } from "../../../src/host/file_system.ts";
import { requireFreeSpace } from "../../../src/host/free_space.ts";
import { errnoOf, toIoError, withIoErrors } from "../../../src/host/io_error.ts";
import { failureOf } from "../../support/failures.ts";

const context = { action: "write index", path: "/a/b" };
const errno = (code: string) => Object.assign(new Error("x"), { code });

describe("toIoError", () => {
  it.each([
    ["ENOSPC", "NO_SPACE"],
    ["EDQUOT", "NO_SPACE"],
    ["EMFILE", "BUSY"],
    ["ENFILE", "BUSY"],
    ["EROFS", "IO_ERROR"],
    ["EIO", "IO_ERROR"],
    ["ENOTTY", "IO_ERROR"],
  ])("gives %s the code %s, with path and errno", (name, code) => {
    const cause = errno(name);
    const error = toIoError(cause, context);
    expect(error).toBeInstanceOf(ShimError);
    expect(error).toMatchObject({ code, cause, details: { path: "/a/b", errno: name } });
  });

  it("says what was tried, what is, and where", () => {
    expect(toIoError(errno("ENOSPC"), context)).toMatchObject({
      message: 'Cannot write index: no space is left on its file system (ENOSPC) at "/a/b"',
    });
  });

  it("gives other errors back as they are", () => {
    for (
      const other of [
        new ShimError("CANCELLED", "Cannot go on: cancelled"),
        new TypeError("x"),
        "text",
        errno("err_lower"),
      ]
    ) {
      expect(toIoError(other, context)).toBe(other);
    }
  });
});

describe("errnoOf", () => {
  it("names the real runtime's errors of a path and of a descriptor", async () => {
    const missing = nodeFileSystem.open("/nonexistent/file", READ_EXISTING);
    expect(errnoOf(await missing.catch((error: unknown) => error))).toBe("ENOENT");
    const full = withOpenFile(
      "/dev/full",
      { flags: constants.O_WRONLY, fileSystem: nodeFileSystem },
      (file) => file.write(new Uint8Array(9), 0),
    );
    expect(errnoOf(await full.catch((error: unknown) => error))).toBe("ENOSPC");
  });
});

describe("withIoErrors", () => {
  it("translates what the body throws", async () => {
    const error = await failureOf(
      withIoErrors(context, () => nodeFileSystem.open("/proc/new-file", CREATE_NEW)),
    );
    expect(error.code).toBe("IO_ERROR");
  });
});

describe("requireFreeSpace", () => {
  it("refuses with both numbers, and lets pass what just fits", async () => {
    const fileSystem = { ...nodeFileSystem, availableBytes: () => Promise.resolve(1000) };
    await requireFreeSpace("/a", { sizeBytes: 1000, action: "copy", fileSystem });
    const error = await failureOf(requireFreeSpace("/a", { sizeBytes: 1001, action: "copy", fileSystem }));
    expect([error.code, error.message]).toEqual([
      "NO_SPACE",
      'Cannot copy: 1000 bytes are free at "/a", 1001 bytes are needed',
    ]);
  });

  it("asks the real file system", async () => {
    expect(await nodeFileSystem.availableBytes("/")).toBeGreaterThan(0);
  });
});
