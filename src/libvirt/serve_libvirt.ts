import { readlinkSync } from "node:fs";
import type { MessagePort } from "node:worker_threads";

import { ShimError, toShimError } from "../errors.ts";
import type { LibvirtBindings } from "./bindings.ts";
import { ConnectionWatch } from "./connection_watch.ts";
import { LibvirtCalls } from "./libvirt_calls.ts";
import { type Method, parseRequest, type Reply, type Results } from "./protocol.ts";

/**
 * Serves requests on the one thread that owns the connection, until `close`. It makes every C call itself,
 * synchronously, because libvirt's last error can be read on the calling thread only.
 *
 * @param load gives the C functions; called at the first use, so that a missing library is that call's failure
 */
export function serveLibvirt(port: MessagePort, load: () => LibvirtBindings): void {
  let bindings: LibvirtBindings | null = null;
  let watch: ConnectionWatch | null = null;
  let calls: LibvirtCalls | null = null;

  function open(uri: string, isWatched: boolean): void {
    calls?.close();
    calls = null;
    bindings ??= load();
    if (isWatched) watch ??= new ConnectionWatch(bindings, send);
    calls = LibvirtCalls.open(bindings, uri, isWatched ? { watch } : {});
  }
  function opened(): LibvirtCalls {
    if (calls === null) throw new ShimError("INTERNAL", "Cannot serve request: no connection was opened");
    return calls;
  }
  function close(): void {
    calls?.close();
    watch?.stop();
    watch = null;
  }

  const serve: { readonly [Name in Method]: (argument: string) => Results[Name] } = {
    open: (uri) => open(uri, false),
    openWatched: (uri) => open(uri, true),
    version: () => opened().version(),
    capabilitiesXml: () => opened().capabilitiesXml(),
    domainCapabilitiesXml(words) {
      const [architecture = "", virtualizationType = ""] = words.split(" ");
      return opened().domainCapabilitiesXml(architecture, virtualizationType);
    },
    defineDomain: (xml) => opened().defineDomain(xml),
    findDomain: (name) => opened().findDomain(name),
    listDomains: () => opened().listDomains(),
    startDomain: (name) => opened().startDomain(name),
    shutdownDomain: (name) => opened().shutdownDomain(name),
    destroyDomain: (name) => opened().destroyDomain(name),
    undefineDomain: (name) => opened().undefineDomain(name),
    domainXml: (name) => opened().domainXml(name),
    keptDomainXml: (name) => opened().keptDomainXml(name),
    close,
  };

  function answer(message: unknown): void {
    const { id, method, argument } = parseRequest(
      message,
      (name): name is Method => Object.hasOwn(serve, name),
    );
    try {
      send({ kind: "result", id, result: serve[method](argument) });
    } catch (error) {
      const { code, message: text, details } = toShimError(error);
      send({ kind: "failure", id, code, message: text, details });
    }
    // With no listener the port no longer keeps the thread alive (Deno's parentPort has no close)
    if (method === "close") port.off("message", answer);
  }

  function send(reply: Reply): void {
    port.postMessage(reply);
  }

  port.on("message", answer);
  send({ kind: "started", threadPath: `/proc/${readlinkSync("/proc/thread-self")}` });
}
