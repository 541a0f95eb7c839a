import { readlinkSync } from "node:fs";
import { parentPort } from "node:worker_threads";

import { ShimError, toShimError } from "../errors.ts";
import { loadLibvirt } from "./bindings.ts";
import { type Method, parseRequest, type Reply, type Results } from "./protocol.ts";
import { LibvirtSession } from "./session.ts";

/*
 * Entry of the one thread that owns the connection. It makes every C call itself, synchronously, because libvirt's
 * last error can be read on the calling thread only.
 */

if (parentPort === null) {
  throw new ShimError("INTERNAL", "Cannot serve libvirt: this file is a worker's entry");
}
const port = parentPort;

let session: LibvirtSession | null = null;

function opened(): LibvirtSession {
  if (session === null) throw new ShimError("INTERNAL", "Cannot serve request: no connection was opened");
  return session;
}

const SERVE: { readonly [Name in Method]: (argument: string) => Results[Name] } = {
  open: (uri) => {
    session?.close();
    session = LibvirtSession.open(loadLibvirt(), uri);
  },
  version: () => opened().version(),
  capabilitiesXml: () => opened().capabilitiesXml(),
  defineDomain: (xml) => opened().defineDomain(xml),
  findDomain: (name) => opened().findDomain(name),
  listDomains: () => opened().listDomains(),
  startDomain: (name) => opened().startDomain(name),
  shutdownDomain: (name) => opened().shutdownDomain(name),
  destroyDomain: (name) => opened().destroyDomain(name),
  undefineDomain: (name) => opened().undefineDomain(name),
  domainXml: (name) => opened().domainXml(name),
  close: () => session?.close(),
};

function isMethod(name: string): name is Method {
  return Object.hasOwn(SERVE, name);
}

function answer(message: unknown): void {
  const { id, method, argument } = parseRequest(message, isMethod);
  try {
    send({ kind: "result", id, result: SERVE[method](argument) });
  } catch (error) {
    const { code, message, details } = toShimError(error);
    send({ kind: "failure", id, code, message, details });
  }
  // With no listener the port no longer keeps the thread alive (Deno's parentPort has no close)
  if (method === "close") port.off("message", answer);
}

function send(reply: Reply): void {
  port.postMessage(reply);
}

port.on("message", answer);
send({ kind: "started", threadPath: `/proc/${readlinkSync("/proc/thread-self")}` });
