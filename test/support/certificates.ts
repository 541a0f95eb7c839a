import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** A certificate and its key: as files, and their PEM. */
export type Certificate = {
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly cert: string;
  readonly key: string;
};

export type CertificateWish = {
  /** The common name. */
  readonly name: string;
  /** As openssl spells them: `DNS:registry.example`, `IP:127.0.0.1`. */
  readonly for?: readonly string[];
  readonly isExpired?: boolean;
};

/** An authority made for one test, trusted by nobody who is not told to. Dispose of it. */
export class TestAuthority {
  readonly directory: string;
  /** The authority's own certificate. */
  readonly file: string;
  #count = 0;

  private constructor(directory: string) {
    this.directory = directory;
    this.file = join(directory, "ca.pem");
  }

  static async make(name = "Test Authority"): Promise<TestAuthority> {
    const authority = new TestAuthority(await mkdtemp(join(tmpdir(), "bootshim-ca-")));
    await authority.#openssl(
      ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key -out ca.pem"
        .split(" "),
      "-subj",
      `/CN=${name}`,
    );
    return authority;
  }

  async issue({ name, for: names = [], isExpired = false }: CertificateWish): Promise<Certificate> {
    this.#count += 1;
    const stem = join(this.directory, `certificate-${this.#count}`);
    await this.#openssl(
      ..."req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split(" "),
      ...["-keyout", `${stem}.key`, "-out", `${stem}.csr`, "-subj", `/CN=${name}`],
      ...(names.length === 0 ? [] : ["-addext", `subjectAltName=${names.join(",")}`]),
    );
    await this.#openssl(
      ..."x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy".split(" "),
      ...["-in", `${stem}.csr`, "-out", `${stem}.pem`, "-days", isExpired ? "-1" : "2"],
    );
    return {
      certificateFile: `${stem}.pem`,
      keyFile: `${stem}.key`,
      cert: await readFile(`${stem}.pem`, "utf8"),
      key: await readFile(`${stem}.key`, "utf8"),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }

  async #openssl(...words: readonly string[]): Promise<void> {
    await run("openssl", words, { cwd: this.directory });
  }
}
