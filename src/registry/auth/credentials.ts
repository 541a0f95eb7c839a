import { type FileSystem, nodeFileSystem } from "../../host/file_system.ts";
import { credentialIn, type CredentialQuery, entryFor, isSameHost, parseAuthFile } from "./auth_file.ts";
import { type Credential, invalidCredentials, passwordCredential } from "./credential.ts";
import { askCredentialHelper, HELPER_TIMEOUT_MS } from "./credential_helper.ts";
import { readGuardedFile } from "./guarded_file.ts";

/** What our own configuration says of one registry. */
export type HostCredentials =
  | { readonly username: string; readonly passwordFile: string }
  | { readonly helper: string };

/** Where credentials come from, strongest first: `hosts`, then each of `files`. */
export type CredentialSettings = {
  /** By `HOST[:PORT]`. */
  readonly hosts?: ReadonlyMap<string, HostCredentials>;
  /** What `podman login`, `skopeo login` and `docker login` write. Absolute paths; each may be missing. */
  readonly files?: readonly string[];
  /** All that helpers find in their environment. */
  readonly helperEnvironment?: Readonly<Record<string, string>>;
  readonly helperTimeoutMs?: number;
  readonly fileSystem?: FileSystem;
  /** Something the user should know, but that stops nothing. Told once for each file. */
  readonly onWarning?: (message: string) => void;
};

const NO_ENVIRONMENT = { PATH: "/usr/local/bin:/usr/bin:/bin" };
/** The name of Docker Hub in docker's own files and helpers. */
const DOCKER_HUB_SERVER = "https://index.docker.io/v1/";

/** The credentials of this host's user. Nothing is kept: what was rotated on disk counts from the next question on. */
export class CredentialStore {
  readonly #settings: CredentialSettings;
  readonly #told = new Set<string>();

  constructor(settings: CredentialSettings = {}) {
    this.#settings = settings;
  }

  /**
   * Who we are to a registry, read anew.
   *
   * @returns undefined when nobody has said
   * @throws {ShimError} CREDENTIALS_INVALID when a place that may hold the answer cannot be used: going on without would
   *   be another user's pull
   */
  async find(query: CredentialQuery): Promise<Credential | undefined> {
    const { hosts = new Map<string, HostCredentials>(), files = [] } = this.#settings;
    const own = [...hosts].find(([host]) => isSameHost(host, query))?.[1];
    if (own !== undefined) return await this.#ownCredential(own, query);
    for (const path of files) {
      const found = await this.#inFile(path, query);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  async #ownCredential(own: HostCredentials, query: CredentialQuery): Promise<Credential | undefined> {
    if ("helper" in own) return await this.#ask(own.helper, query);
    const place = `"${own.passwordFile}"`;
    const text = await this.#read(own.passwordFile, "refuse");
    if (text === undefined) throw invalidCredentials(place, "there is no such file");
    return passwordCredential(own.username, text.replace(/\r?\n$/, ""), place);
  }

  async #inFile(path: string, query: CredentialQuery): Promise<Credential | undefined> {
    const text = await this.#read(path, "warn");
    if (text === undefined) return undefined;
    const place = `"${path}"`;
    const { auths, credHelpers, credsStore } = parseAuthFile(text, place);
    const helper = entryFor(credHelpers, query) ?? credsStore;
    const asked = helper ? await this.#ask(helper, query) : undefined;
    return asked ?? credentialIn(entryFor(auths, query), place);
  }

  #ask(helper: string, query: CredentialQuery): Promise<Credential | undefined> {
    return askCredentialHelper(helper, {
      server: isSameHost("docker.io", query) ? DOCKER_HUB_SERVER : query.host,
      environment: this.#settings.helperEnvironment ?? NO_ENVIRONMENT,
      timeoutMs: this.#settings.helperTimeoutMs ?? HELPER_TIMEOUT_MS,
    });
  }

  #read(path: string, whenWorldReadable: "refuse" | "warn"): Promise<string | undefined> {
    const { fileSystem = nodeFileSystem, onWarning = () => {} } = this.#settings;
    return readGuardedFile(path, {
      fileSystem,
      whenWorldReadable,
      onWarning: (message) => {
        if (this.#told.has(path)) return;
        this.#told.add(path);
        onWarning(message);
      },
    });
  }
}
