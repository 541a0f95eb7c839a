import { describe, expect, it } from "vitest";
import { qemuGroupOf } from "../../../src/host/qemu_group.ts";

const ROOT = "root:x:0:0:root:/root:/bin/bash\n";

describe("qemuGroupOf", () => {
  it("takes the group named as libvirt-qemu before the user's primary group", () => {
    const passwd = `${ROOT}libvirt-qemu:x:64055:108:Libvirt Qemu,,,:/var/lib/libvirt:/usr/sbin/nologin\n`;
    expect(qemuGroupOf(passwd, "root:x:0:\nkvm:x:108:\nlibvirt-qemu:x:64055:libvirt-qemu\n")).toBe(64055);
  });

  it("takes the primary group when none has the user's name", () => {
    expect(qemuGroupOf(`${ROOT}qemu:x:107:36:qemu user:/:/sbin/nologin\n`, "kvm:x:36:\n")).toBe(36);
  });

  it("prefers libvirt-qemu to qemu", () => {
    expect(qemuGroupOf("qemu:x:1:11::/:/x\nlibvirt-qemu:x:2:22::/:/x\n", "")).toBe(22);
  });

  it.each([
    ["there is no such user", ROOT, "qemu:x:5:\n"],
    ["the files are empty", "", ""],
    ["the ids are not numbers", "qemu:x:107:many::/:/x\n", "qemu:x:-1:\n"],
    ["the name is only a part of another", "qemu2:x:1:2::/:/x\n#qemu:x:1:2::/:/x\n", ""],
  ])("gives null when %s", (_case, passwd, group) => {
    expect(qemuGroupOf(passwd, group)).toBeNull();
  });
});
