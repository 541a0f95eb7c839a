import type { Architecture } from "../image/platform.ts";

/** QEMU maps an x86 firmware file so that its last byte is the last below 4 GiB, and wants a multiple of 64 KiB. */
const X86_SIZE_BYTES = 64 * 1024;

/** Where in the file the parts of the x86 program lie; the processor starts 16 bytes before the end. */
const X86_GDT = 0xff80;
const X86_START = 0xffa0;
const X86_RESET = 0xfff0;

/** What the x86 program writes to the debug-exit port; QEMU's exit code is this, doubled, plus one. */
const X86_EXIT_VALUE = 0x2a;
export const X86_EXIT_PORT = 0xf4;

/**
 * How often the loops run. A processor needs about 30 ms, QEMU's translator 150 ms; a "KVM" that interprets each
 * instruction in the kernel, as seen on a machine without vmx or svm, needs a minute.
 */
const X86_ITERATIONS = 64_000_000;

/** A guest without an operating system: it counts down and powers off. */
export type ProbeFirmware = { readonly bytes: Uint8Array<ArrayBuffer>; readonly expectedExitCode: number };

export function probeFirmware(architecture: Architecture): ProbeFirmware {
  return architecture === "amd64" ? x86Firmware() : arm64Firmware();
}

/**
 * Counts in 32-bit protected mode: without "unrestricted guest", KVM interprets real mode on sound machines too.
 *
 * ```asm
 * gdt:    .quad 0                        # the null descriptor
 *         .quad 0x00cf9b000000ffff       # 0x08: code, flat 4 GiB, already "accessed" as the memory is read-only
 * gdtr:   .word 15
 *         .long 0xffffff80               # gdt
 *
 * start:  .code16                        # at 0xffa0, cs base 0xffff0000
 *         lgdtl %cs:(gdtr)               # 2e 66 0f 01 16 90 ff
 *         mov   %cr0, %eax               # 0f 20 c0
 *         or    $1, %al                  # 0c 01
 *         mov   %eax, %cr0               # 0f 22 c0
 *         ljmpl $0x08, $0xffffffb8       # 66 ea b8 ff ff ff 08 00
 *         .code32                        # at 0xffb8
 *         mov   $ITERATIONS, %ecx        # b9 imm32
 * 1:      dec   %ecx                     # 49
 *         jnz   1b                       # 75 fd
 *         mov   $VALUE, %al              # b0 imm8
 *         out   %al, $PORT               # e6 imm8
 * 2:      jmp   2b                       # eb fe
 *
 * reset:  .code16                        # at 0xfff0
 *         jmp   start                    # eb ae
 * ```
 */
function x86Firmware(): ProbeFirmware {
  const bytes = new Uint8Array(X86_SIZE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(X86_GDT + 8, 0x00cf9b000000ffffn, true);
  view.setUint16(X86_GDT + 16, 15, true);
  view.setUint32(X86_GDT + 18, 0xffff0000 + X86_GDT, true);
  bytes.set([0x2e, 0x66, 0x0f, 0x01, 0x16, 0x90, 0xff], X86_START);
  bytes.set([0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0], X86_START + 7);
  bytes.set([0x66, 0xea, 0xb8, 0xff, 0xff, 0xff, 0x08, 0x00], X86_START + 15);
  bytes[X86_START + 24] = 0xb9;
  view.setUint32(X86_START + 25, X86_ITERATIONS, true);
  bytes.set([0x49, 0x75, 0xfd, 0xb0, X86_EXIT_VALUE, 0xe6, X86_EXIT_PORT, 0xeb, 0xfe], X86_START + 29);
  bytes.set([0xeb, 0xae], X86_RESET);
  return { bytes, expectedExitCode: 2 * X86_EXIT_VALUE + 1 };
}

/**
 * Runs from address 0 with the caches off, so it counts to a million only.
 *
 * @see https://developer.arm.com/documentation/den0022/f: PSCI 1.2, section 5.10, SYSTEM_OFF
 */
function arm64Firmware(): ProbeFirmware {
  const instructions = [
    0xd2a00209, //    movz x9, #0x10, lsl #16      1,048,576 times
    0xf1000529, // 1: subs x9, x9, #1
    0x54ffffe1, //    b.ne 1b
    0x52b08000, //    movz w0, #0x8400, lsl #16    0x84000008: PSCI SYSTEM_OFF
    0x72800100, //    movk w0, #0x0008
    0xd4000002, //    hvc  #0
    0x14000000, // 2: b    2b                      not reached: QEMU is gone
  ];
  const bytes = new Uint8Array(4 * instructions.length);
  const view = new DataView(bytes.buffer);
  instructions.forEach((word, index) => view.setUint32(4 * index, word, true));
  return { bytes, expectedExitCode: 0 };
}
