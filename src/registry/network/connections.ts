import { lookup as lookupInSystem } from "node:dns/promises";
import type { LookupFunction, Socket } from "node:net";
import type { SecureContext } from "node:tls";
import type { Dispatcher } from "undici";
import { MAX_HEAD_BYTES, type RegistryLimits } from "../limits.ts";
import { type AddressClass, addressClassOf } from "./address_class.ts";
import { withLargeReads } from "./large_reads.ts";
import { chooseProxy, type ProxySettings } from "./proxy_choice.ts";
import {
  literalAddress,
  PRIVATE_REACH,
  PUBLIC_REACH,
  type Reach,
  reachBeside,
  requireWithin,
  type SentBy,
} from "./reach.ts";
import { readTlsContext, type TlsFiles } from "./tls_trust.ts";

/** All addresses of a host name. */
export type Lookup = (hostname: string) => Promise<readonly { address: string; family: number }[]>;

/** How hosts are reached. */
export type NetworkSettings = {
  /** By `HOST[:PORT]` as in URLs. */
  readonly tls?: ReadonlyMap<string, TlsFiles>;
  /** `HOST[:PORT]` of registries that may redirect to private networks. */
  readonly allowPrivateRedirects?: readonly string[];
  readonly proxies?: ProxySettings;
  /**
   * `HOST[:PORT]`, as in URLs, that may be on any network; all others are reached at public addresses only. Default: every
   * host may, because the user named it.
   */
  readonly namedHosts?: ReadonlySet<string>;
  /** Default: the system's. */
  readonly lookup?: Lookup;
  /** Default: the networks that IANA has set apart. */
  readonly addressClassOf?: (address: string) => AddressClass;
};

type Dialling = { readonly secureContext: SecureContext; readonly undici: typeof import("undici") };

/**
 * Connections, kept alive between requests. Those made on a registry's word are apart from those made on the user's:
 * what the user may reach is no way in for a registry.
 */
export class Connections {
  readonly #limits: RegistryLimits;
  readonly #settings: NetworkSettings;
  readonly #tls: Map<string, TlsFiles>;
  readonly #named: Set<string> | undefined;
  readonly #contexts = new Map<string, Promise<SecureContext>>();
  readonly #dispatchers = new Map<string, Dispatcher>();
  /** By origin, the networks on which what the user named was reached. */
  readonly #reached = new Map<string, Set<AddressClass>>();
  #isClosed = false;

  constructor(limits: RegistryLimits, settings: NetworkSettings = {}) {
    this.#limits = limits;
    this.#settings = settings;
    this.#tls = new Map(settings.tls);
    this.#named = settings.namedHosts && new Set(settings.namedHosts);
  }

  /** From now on a host is given these files. */
  setTls(host: string, files: TlsFiles): void {
    if (JSON.stringify(this.#tls.get(host)) === JSON.stringify(files)) return;
    this.#tls.set(host, files);
    this.#contexts.delete(host);
  }

  /** From now on a host may be on any network: whoever configured this process named it. */
  addNamed(host: string): void {
    this.#named?.add(host);
  }

  /** The proxy through which a URL is reached. Its URL may hold a password. */
  proxyOf(url: URL): URL | undefined {
    return this.#settings.proxies && chooseProxy(url, this.#settings.proxies);
  }

  /**
   * What sends a request to a URL. The address that is dialled is judged when it is dialled; only a proxy looks names up
   * by itself, so of what goes through one only addresses that the URL spells out are judged.
   *
   * @throws {AddressRefused}
   * @throws {ShimError} CONFIG_INVALID when the host's TLS files cannot be used
   */
  async dispatcherFor(url: URL, sentBy?: SentBy): Promise<Dispatcher> {
    const reach = this.#reachOf(url, sentBy);
    const literal = literalAddress(url);
    if (literal !== undefined) requireWithin(reach, literal, this.#classOf(literal));
    const proxy = this.proxyOf(url);
    const files = url.protocol === "https:" ? this.#tls.get(url.host) : undefined;
    const key = [
      reach === undefined ? "any" : [...reach].sort().join(),
      files && `${url.host} ${JSON.stringify(files)}`,
      proxy?.href,
    ].join(" ");
    const made = this.#dispatchers.get(key);
    if (made !== undefined) return made;
    // Loaded for the first request only: it costs some 80 ms, a third of a command that needs no registry.
    const undici = await import("undici");
    const secureContext = await this.#contextOf(files === undefined ? "" : url.host, files);
    const options = { reach, secureContext, undici };
    const dispatcher = this.#dispatchers.get(key) ??
      (proxy === undefined ? this.#direct(options) : await this.#through(proxy, options));
    this.#dispatchers.set(key, dispatcher);
    // Asked after the end: whoever asks gets what a closed connection gives.
    if (this.#isClosed) await dispatcher.destroy();
    return dispatcher;
  }

  /**
   * Loads what the first request needs, for who would rather wait for it now.
   *
   * @throws {ShimError} CONFIG_INVALID when the system's certificates cannot be used
   */
  async load(): Promise<void> {
    await import("undici");
    await this.#contextOf("");
  }

  /** Ends what is under way, and closes all. */
  async destroy(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#dispatchers.values()].map((dispatcher) => dispatcher.destroy()));
  }

  #reachOf(url: URL, sentBy: SentBy | undefined): Reach {
    if (sentBy === undefined) return this.#named?.has(url.host) === false ? PUBLIC_REACH : undefined;
    const { registry } = sentBy;
    if (this.#settings.allowPrivateRedirects?.includes(registry.host)) return PRIVATE_REACH;
    const literal = literalAddress(registry);
    return reachBeside([
      ...this.#reached.get(registry.origin) ?? [],
      ...(literal === undefined ? [] : [this.#classOf(literal)]),
    ]);
  }

  #classOf(address: string): AddressClass {
    return (this.#settings.addressClassOf ?? addressClassOf)(address);
  }

  #contextOf(key: string, files: TlsFiles = { authorities: [] }): Promise<SecureContext> {
    let context = this.#contexts.get(key);
    if (context === undefined) {
      context = readTlsContext(key, files);
      this.#contexts.set(key, context);
      // A file that is mended is read again.
      context.catch(() => this.#contexts.delete(key));
    }
    return context;
  }

  #common() {
    return {
      headersTimeout: this.#limits.headersTimeoutMs,
      bodyTimeout: this.#limits.stallTimeoutMs,
      // Only what bounds memory: what is refused by its size is told apart by the transport, which sees the names.
      maxHeaderSize: MAX_HEAD_BYTES,
      // One connection per transfer: a stalled layer must not hold up its neighbours.
      allowH2: false,
      pipelining: 1,
    } as const;
  }

  #direct({ reach, secureContext, undici }: Dialling & { reach: Reach }): Dispatcher {
    const common = {
      timeout: this.#limits.connectTimeoutMs,
      allowH2: false,
      secureContext,
      lookup: this.#judgedLookup(reach),
    };
    const connectTls = undici.buildConnector(common);
    const connectPlain = withLargeReads((onread) => undici.buildConnector({ ...common, onread }));
    return new undici.Agent({
      ...this.#common(),
      connect: (options, callback) =>
        (options.protocol === "https:" ? connectTls : connectPlain)(options, (...[error, socket]) => {
          if (error !== null) return callback(error, null);
          try {
            const origin = `${options.protocol}//${options.host}`;
            this.#judgeConnection(socket, { origin, reach });
          } catch (refusal) {
            socket.destroy();
            return callback(refusal instanceof Error ? refusal : new Error(String(refusal)), null);
          }
          callback(null, socket);
        }),
    });
  }

  /** The proxy's own address is the user's word; what lies behind it is out of our sight. */
  async #through(proxy: URL, { secureContext, undici }: Dialling): Promise<Dispatcher> {
    const uri = new URL(proxy);
    const { username, password } = uri;
    uri.username = "";
    uri.password = "";
    const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    return new undici.ProxyAgent({
      ...this.#common(),
      uri: uri.href,
      ...(username === "" ? {} : { token: `Basic ${Buffer.from(credentials).toString("base64")}` }),
      connectTimeout: this.#limits.connectTimeoutMs,
      proxyTls: {
        lookup: this.#judgedLookup(undefined),
        secureContext: await this.#contextOf(""),
      },
      requestTls: { secureContext },
      clientFactory: (origin, options) =>
        new undici.Pool(origin, { ...options, headersTimeout: this.#limits.connectTimeoutMs }),
    });
  }

  /** The last word before a connection is used: where it really ends. */
  #judgeConnection(socket: Socket, { origin, reach }: { origin: string; reach: Reach }): void {
    const address = socket.remoteAddress;
    if (address === undefined) return;
    const addressClass = this.#classOf(address);
    requireWithin(reach, address, addressClass);
    if (reach !== undefined) return;
    const reached = this.#reached.get(origin) ?? new Set();
    this.#reached.set(origin, reached.add(addressClass));
  }

  /** Refuses a name when one of its addresses is out of reach. The addresses it gives are the ones that are dialled. */
  #judgedLookup(reach: Reach): LookupFunction {
    return (hostname, { all }, callback) => {
      this.#lookup(hostname).then((addresses) => {
        for (const { address } of addresses) requireWithin(reach, address, this.#classOf(address));
        const [first] = addresses;
        if (first === undefined) throw Object.assign(new Error("no address"), { code: "ENOTFOUND" });
        if (all) callback(null, [...addresses]);
        else callback(null, first.address, first.family);
      }).catch((error: Error) => callback(error, "", 0));
    };
  }

  #lookup(hostname: string): ReturnType<Lookup> {
    return this.#settings.lookup?.(hostname) ?? lookupInSystem(hostname, { all: true });
  }
}
