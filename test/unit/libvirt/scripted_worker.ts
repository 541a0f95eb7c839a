import { parentPort } from "node:worker_threads";

/** Entry of a worker that misbehaves as the name it is asked for says; every other call it answers. */

function answer(id: number, argument: string): void {
  switch (argument) {
    case "hang":
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      return;
    case "crash":
      throw new RangeError("worker crashed on purpose");
    case "end":
      setTimeout(() => parentPort?.off("message", receive));
      return;
    case "other id":
      parentPort?.postMessage({ kind: "result", id: id + 1, result: undefined });
      return;
    case "nonsense":
      parentPort?.postMessage("nonsense");
      return;
    case "wrong shape":
      parentPort?.postMessage({ kind: "result", id, result: { name: 1 } });
      return;
    case "fail":
      parentPort?.postMessage({
        kind: "failure",
        id,
        code: "MACHINE_NOT_FOUND",
        message: "Cannot start domain: scripted",
        details: { libvirtCode: 42, libvirtDomain: 10 },
      });
      return;
    default:
      parentPort?.postMessage({ kind: "result", id, result: undefined });
  }
}

function receive(message: { id: number; method: string; argument: string }): void {
  answer(message.id, message.argument);
  if (message.method === "close") parentPort?.off("message", receive);
}

parentPort?.on("message", receive);
