import { describe, expect, it } from "vitest";
import { parseLayoutLocation, parseReference } from "../../../src/image/reference.ts";
import { randomWord } from "../../support/random_word.ts";
import { randomDigest } from "../../support/image_documents.ts";
import { refusalOf } from "../../support/failures.ts";

const digest = randomDigest();
const sha512 = randomDigest("sha512");
const word = randomWord();

describe("parseReference", () => {
  it.each([
    ["host, repository, tag", `registry.example.org/${word}:1.0`, {
      host: "registry.example.org",
      repository: word,
      tag: "1.0",
    }],
    ["no tag", "registry.example.org/os", { host: "registry.example.org", repository: "os", tag: "latest" }],
    ["docker://", "docker://registry.example.org/os:1", {
      host: "registry.example.org",
      repository: "os",
      tag: "1",
    }],
    ["a port", "registry.example.org:65535/os:1", {
      host: "registry.example.org:65535",
      repository: "os",
      tag: "1",
    }],
    ["upper case in the host", "Registry.Example.ORG/os:V1", {
      host: "registry.example.org",
      repository: "os",
      tag: "V1",
    }],
    ["localhost", "localhost/os", { host: "localhost", repository: "os", tag: "latest" }],
    ["localhost with a port", "localhost:5000/os", {
      host: "localhost:5000",
      repository: "os",
      tag: "latest",
    }],
    ["an IPv4 address", "127.0.0.1:5000/os/demo:1", {
      host: "127.0.0.1:5000",
      repository: "os/demo",
      tag: "1",
    }],
    ["an IPv6 address", "[::1]/os:1", { host: "[::1]", repository: "os", tag: "1" }],
    ["an IPv6 address with a port", "[FD00::A]:5000/os", {
      host: "[fd00::a]:5000",
      repository: "os",
      tag: "latest",
    }],
    ["an IPv4 address in an IPv6 one", "[::ffff:127.0.0.1]:1/os", {
      host: "[::ffff:127.0.0.1]:1",
      repository: "os",
      tag: "latest",
    }],
    ["every separator in a repository", "h.io/a.b/c_d/e__f/g-h/i--j---k/0:x", {
      host: "h.io",
      repository: "a.b/c_d/e__f/g-h/i--j---k/0",
      tag: "x",
    }],
    ["the longest repository", `h.io/${"r".repeat(255)}`, {
      host: "h.io",
      repository: "r".repeat(255),
      tag: "latest",
    }],
    ["the longest tag", `h.io/os:_${"T".repeat(127)}`, {
      host: "h.io",
      repository: "os",
      tag: `_${"T".repeat(127)}`,
    }],
    ["every character of a tag", "h.io/os:aZ0_.-", { host: "h.io", repository: "os", tag: "aZ0_.-" }],
    ["a digest", `h.io/os@${digest}`, { host: "h.io", repository: "os", tag: "latest", digest }],
    ["a sha512 digest", `h.io/os@${sha512}`, {
      host: "h.io",
      repository: "os",
      tag: "latest",
      digest: sha512,
    }],
    ["tag and digest", `h.io:1/os:1.0@${digest}`, { host: "h.io:1", repository: "os", tag: "1.0", digest }],
    ["a tag that looks like a digest's tag", "h.io/os:sha256-abc.sig", {
      host: "h.io",
      repository: "os",
      tag: "sha256-abc.sig",
    }],
    ["a host named like a transport", "docker://oci:5000/os:1", {
      host: "oci:5000",
      repository: "os",
      tag: "1",
    }],
  ])("reads a registry reference with %s", (_name, text, expected) => {
    expect(parseReference(text)).toEqual({ transport: "docker", ...expected });
  });

  it.each([
    ["a tag", `oci:/srv/${word}:1.0`, { directory: `/srv/${word}`, tag: "1.0" }],
    ["no tag", "oci:images", { directory: "images", tag: "latest" }],
    ["a dot", "oci:.", { directory: ".", tag: "latest" }],
    ["a digest", `oci:/srv/images@${digest}`, { directory: "/srv/images", tag: "latest", digest }],
    ["a whole reference as its name", "oci:/srv/images:127.0.0.1:5000/os/demo:1", {
      directory: "/srv/images",
      tag: "127.0.0.1:5000/os/demo:1",
    }],
    ["a whole reference with a digest as its name", `oci:/srv/images:h.io/os/demo@${digest}`, {
      directory: "/srv/images",
      tag: "h.io/os/demo",
      digest,
    }],
    ["a name after the first colon, as skopeo reads it", "oci:/srv/a:b/images", {
      directory: "/srv/a",
      tag: "b/images",
    }],
    ["tag and digest", `oci:/srv/a:b@${digest}`, { directory: "/srv/a", tag: "b", digest }],
    ["an @ in the folder's name", "oci:/srv/me@home", { directory: "/srv/me@home", tag: "latest" }],
    ["an @ in the folder's name, and a tag", "oci:/srv/me@home:1", { directory: "/srv/me@home", tag: "1" }],
    ["blanks, upper case and umlauts", "oci:My Images/Größe:1", { directory: "My Images/Größe", tag: "1" }],
    ["dots, for the command line to resolve", "oci:../../x/./y//z:1", {
      directory: "../../x/./y//z",
      tag: "1",
    }],
  ])("reads a layout reference with %s", (_name, text, expected) => {
    expect(parseReference(text)).toEqual({ transport: "oci", ...expected });
  });

  it.each([
    ["a tag", "oci-archive:/srv/a.tar:1.0", { file: "/srv/a.tar", tag: "1.0" }],
    ["no tag", "oci-archive:a.tar", { file: "a.tar", tag: "latest" }],
    ["a digest", `oci-archive:a.tar@${digest}`, { file: "a.tar", tag: "latest", digest }],
    ["a whole reference as its name", "oci-archive:a.tar:h.io:1/os:2", { file: "a.tar", tag: "h.io:1/os:2" }],
  ])("reads an archive reference with %s", (_name, text, expected) => {
    expect(parseReference(text)).toEqual({ transport: "oci-archive", ...expected });
  });

  it.each([
    ["nothing", "", "HOST/REPOSITORY"],
    ["a short name", "debian", "docker.io/library/debian"],
    ["a short name with a tag", "debian:12", "docker.io/library/debian:12"],
    ["a short name with a digest", `a:b@${digest}`, "docker.io/library/a:b"],
    ["a user's repository", "ironcore-dev/os", "docker.io/ironcore-dev/os"],
  ])("refuses %s, with a hint", (_name, text, hint) => {
    expect(refusalOf(() => parseReference(text))).toEqual({
      code: "REFERENCE_INVALID",
      message: `Cannot read reference ${JSON.stringify(text)}: it names no registry host`,
      details: { remedy: `write the full name, for example "${hint}"` },
    });
  });

  it.each([
    ["RP46 upper case in the repository", "h.io/OS:1", 'the repository "OS" is not valid'],
    ["RP46 ..", "h.io/../os", 'the repository "../os" is not valid'],
    ["RP46 .. as the host", "../os:1", '".." is not a host name'],
    ["RP46 //", "h.io//os", 'the repository "/os" is not valid'],
    ["a slash at the end", "h.io/os/", 'the repository "os/" is not valid'],
    ["no repository", "h.io/", 'the repository "" is not valid'],
    ["no repository but a tag", "h.io/:1", 'the repository "" is not valid'],
    ["a leading dot", "h.io/.os", 'the repository ".os" is not valid'],
    ["a trailing separator", "h.io/os-", 'the repository "os-" is not valid'],
    ["three underscores", "h.io/o___s", 'the repository "o___s" is not valid'],
    ["two dots inside", "h.io/o..s", 'the repository "o..s" is not valid'],
    ["a percent sign", "h.io/o%2fs", 'the repository "o%2fs" is not valid'],
    ["a query", "h.io/os?x=1", 'the repository "os?x=1" is not valid'],
    ["a fragment", "h.io/os#x", 'the repository "os#x" is not valid'],
    ["a backslash", "h.io/o\\s", 'the repository "o\\\\s" is not valid'],
    ["a blank", "h.io/o s", 'the repository "o s" is not valid'],
    ["two tags", "h.io/os:1:2", 'the repository "os:1" is not valid'],
    [
      "RP46 a repository of 256",
      `h.io/${"r".repeat(256)}`,
      `the repository "${"r".repeat(256)}" is not valid`,
    ],
    ["RP46 a tag of 129", `h.io/os:${"t".repeat(129)}`, `the tag "${"t".repeat(129)}" is not valid`],
    ["an empty tag", "h.io/os:", 'the tag "" is not valid'],
    ["an empty tag before a digest", `h.io/os:@${digest}`, 'the tag "" is not valid'],
    ["a tag with a leading dot", "h.io/os:.1", 'the tag ".1" is not valid'],
    ["a tag with a leading dash", "h.io/os:-rf", 'the tag "-rf" is not valid'],
    ["a tag with a plus", "h.io/os:1+2", 'the tag "1+2" is not valid'],
    ["RP46 unicode in the repository", "h.io/ös", 'the repository "ös" is not valid'],
    ["RP46 unicode in the tag", "h.io/os:ö", 'the tag "ö" is not valid'],
    ["RP46 unicode in the host", "hö.io/os", '"hö.io" is not a host name'],
    ["RP46 a host whose lower case is ASCII", "\u212Aernel.org/os", '"\u212Aernel.org" is not a host name'],
    ["a full-width dot in the host", "h．io:1/os", '"h．io:1" is not a host name'],
    ["a host with a leading dash", "-h.io/os", '"-h.io" is not a host name'],
    ["a label with a trailing dash", "h-.io/os", '"h-.io" is not a host name'],
    ["a host with an underscore", "h_h.io/os", '"h_h.io" is not a host name'],
    ["an empty label", "h..io/os", '"h..io" is not a host name'],
    ["a dot at the end of the host", "h.io./os", '"h.io." is not a host name'],
    ["a port without a host", ":5000/os", '":5000" is not a host name'],
    ["an empty port", "h.io:/os", '"h.io:" is not a host name'],
    ["port 0", "h.io:0/os", '"h.io:0" is not a host name'],
    ["port 65536", "h.io:65536/os", '"h.io:65536" is not a host name'],
    ["a port of six digits", "h.io:000080/os", '"h.io:000080" is not a host name'],
    ["a port in words", "h.io:http/os", '"h.io:http" is not a host name'],
    ["an open IPv6 bracket", "[::1/os", '"[::1" is not a host name'],
    ["an IPv6 zone", "[fe80::1%eth0]/os", '"[fe80::1%eth0]" is not a host name'],
    ["an IPv6 address without brackets", "::1/os", '"::1" is not a host name'],
    ["a short word in upper case before ://", "DOCKER://h.io/os", '"DOCKER:" is not a host name'],
    ["docker:// twice", "docker://docker://h.io/os", '"docker:" is not a host name'],
  ])("refuses %s", (_name, text, why) => {
    const { code, message } = refusalOf(() => parseReference(text));
    expect({ code, message }).toEqual({
      code: "REFERENCE_INVALID",
      message: `Cannot read reference ${JSON.stringify(text.slice(0, 200))}: ${why}`,
    });
  });

  it.each([
    ["RP46 upper case", `@sha256:${"A".repeat(64)}`],
    ["63 digits", `@sha256:${"a".repeat(63)}`],
    ["65 digits", `@sha256:${"a".repeat(65)}`],
    ["nothing encoded", "@sha256:"],
    ["nothing", "@"],
    ["no algorithm", "@:abc"],
    ["an unknown algorithm", `@blake3:${"a".repeat(64)}`],
    ["a path", "@sha256:../../etc/passwd"],
    ["two digests", `@${digest}@${digest}`],
    ["a tag after the digest", `@${digest}:1`],
  ])("refuses a digest with %s", (_name, suffix) => {
    const { code, details } = refusalOf(() => parseReference(`h.io/os${suffix}`));
    expect({ code, details }).toEqual({
      code: "REFERENCE_INVALID",
      details: { remedy: "copy the digest from `bootshim images` or `bootshim inspect`" },
    });
  });

  it.each([
    ["no folder", "oci:", "no folder is named"],
    ["no folder but a tag", "oci::latest", "no folder is named"],
    ["no folder but a digest", `oci:@${digest}`, "no folder is named"],
    ["an empty tag", "oci:/srv/images:", 'the tag "" is not valid'],
    ["a broken tag", "oci:/srv/images:a b", 'the tag "a b" is not valid'],
    ["a broken name", "oci:/srv/images:a//b", 'the tag "a//b" is not valid'],
    ["a digest after a colon", `oci:/srv/images:${digest}`, "a digest stands where a tag does"],
    [
      "a digest without anything encoded",
      "oci:/srv/images@sha256",
      'Cannot read digest "sha256": must be "algorithm:encoded"',
    ],
    [
      "a digest in upper case",
      `oci:x@sha256:${"A".repeat(64)}`,
      `Cannot read digest "sha256:${
        "A".repeat(64)
      }": must be 64 lower-case hexadecimal characters after "sha256:"`,
    ],
    [
      "a digest of an unknown algorithm",
      `oci:x@blake3:${"a".repeat(64)}`,
      `Cannot verify digest "blake3:${"a".repeat(64)}": algorithm is "blake3", must be sha256 or sha512`,
    ],
  ])("refuses a layout reference with %s", (_name, text, why) => {
    const { code, message } = refusalOf(() => parseReference(text));
    expect({ code, message }).toEqual({
      code: "REFERENCE_INVALID",
      message: `Cannot read reference ${JSON.stringify(text)}: ${why}`,
    });
  });

  it.each(["http", "https", "oci-archive", "docker-archive", "dir", "containers-storage", "file"])(
    "refuses transport %s: as one",
    (scheme) => {
      expect(refusalOf(() => parseReference(`${scheme}://h.io/os:1`))).toEqual({
        code: "REFERENCE_INVALID",
        message:
          `Cannot read reference "${scheme}://h.io/os:1": "${scheme}:" is not a place bootshim reads from`,
        details: {
          remedy: 'use "docker://HOST/REPOSITORY:TAG", "oci:DIR:TAG" or "oci-archive:FILE:TAG"',
        },
      });
    },
  );

  it.each(["\0", "\n", "\r\n", "\t", "\u001b[31m", "\u007f", "\u009b"])(
    "RP46 refuses control character %j anywhere",
    (control) => {
      for (
        const text of [`${control}h.io/os`, `h.io/o${control}s`, `h.io/os:1${control}`, `oci:/srv${control}`]
      ) {
        expect(refusalOf(() => parseReference(text))).toEqual({
          code: "REFERENCE_INVALID",
          message: `Cannot read reference ${JSON.stringify(text)}: it holds a control character`,
          details: { remedy: "write it in printable characters" },
        });
      }
    },
  );

  it.each([
    ["a user", "user@h.io/os:1", "***@h.io/os:1"],
    ["user and password", "me:hunter2@h.io/os:1", "***@h.io/os:1"],
    ["a password with @", "docker://me:hunt@er2@h.io/os", "docker://***@h.io/os"],
    ["a digest behind", `me:hunter2@h.io/os@${digest}`, `***@h.io/os@${digest}`],
    ["a password longer than what is shown", `${"u".repeat(150)}:${"p".repeat(150)}@h.io/os`, "***@h.io/os"],
  ])("RP46 refuses %s before a host, and does not repeat it", (_name, text, shown) => {
    expect(refusalOf(() => parseReference(text))).toEqual({
      code: "REFERENCE_INVALID",
      message: `Cannot read reference "${shown}": it holds a user name`,
      details: { remedy: "write HOST/REPOSITORY without user and password" },
    });
  });

  it("does not repeat the password in a URL", () => {
    expect(refusalOf(() => parseReference("https://me:hunter2@h.io/os")).message).toBe(
      'Cannot read reference "https://***@h.io/os": "https:" is not a place bootshim reads from',
    );
  });

  it("keeps the broken digest's own error as cause", () => {
    expect(() => parseReference("h.io/os@md5:d41d8cd98f00b204e9800998ecf8427e")).toThrow(
      expect.objectContaining({ cause: expect.objectContaining({ code: "DIGEST_UNSUPPORTED" }) }),
    );
  });

  it("refuses more than 4,096 characters", () => {
    expect(parseReference(`oci:/${"d".repeat(4091)}`)).toMatchObject({ directory: `/${"d".repeat(4091)}` });
    expect(refusalOf(() => parseReference(`oci:/${"d".repeat(4092)}`))).toEqual({
      code: "REFERENCE_INVALID",
      message: `Cannot read reference "oci:/${
        "d".repeat(195)
      }": it has 4097 characters, at most 4096 are read`,
      details: { remedy: "shorten it" },
    });
  });

  it.each([
    ["labels", "a.".repeat(2040) + "!/x"],
    ["dashes in a label", `h.${"a-".repeat(2040)}/x`],
    ["dashes in a repository", `h.io/${"a-".repeat(2040)}!`],
    ["underscores in a repository", `h.io/${"_".repeat(4000)}!`],
    ["separators", `h.io/${"a__".repeat(1360)}!`],
    ["slashes", `h.io${"/".repeat(4000)}`],
    ["@", `h.io/x${"@".repeat(4000)}`],
    ["@ before a slash", `${"@".repeat(4000)}/x`],
    ["colons", `h.io/x${":".repeat(4000)}`],
    ["colons in a path", `oci:${":a@".repeat(1300)}/!:`],
    ["a scheme without end", "a+-".repeat(1365)],
    ["digits of an IPv6 address", `[${"0:".repeat(2040)}`],
    ["a digest", `h.io/x@${"a+".repeat(2040)}`],
    ["words in a layout's name", `oci:x:${"a-".repeat(2040)}!`],
    ["dashes in a layout's name", `oci:x:a${"-".repeat(4000)}`],
    ["slashes in a layout's name", `oci:x:${"a/".repeat(2040)}`],
  ])("takes linear time on hostile %s", (_name, text) => {
    expect(text.length).toBeGreaterThan(3900);
    const started = performance.now();
    for (let i = 0; i < 10; i++) expect(refusalOf(() => parseReference(text)).code).toBe("REFERENCE_INVALID");
    // Quadratic time would be 80 ms and more for each.
    expect((performance.now() - started) / 10).toBeLessThan(20);
  });
});

describe("parseLayoutLocation", () => {
  it.each([
    ["oci:/srv/images", { transport: "oci", path: "/srv/images" }],
    ["oci-archive:me@home.tar", { transport: "oci-archive", path: "me@home.tar" }],
  ])("reads %s", (text, expected) => {
    expect(parseLayoutLocation(text)).toEqual(expected);
  });

  it.each([
    ["", "it names no image layout"],
    ["oci:", "it names no image layout"],
    ["/srv/a.tar", "it names no image layout"],
    ["docker://h.io/os:1", "it names no image layout"],
    ["oci:/srv/images:1", "it names one image, must name the whole layout"],
    ["oci-archive:a.tar:h.io/os:1", "it names one image, must name the whole layout"],
    [`oci:/srv/images@${digest}`, "it names one image, must name the whole layout"],
    ["oci:/srv/\u009bimages", "it holds a control character"],
  ])("refuses %j", (text, why) => {
    expect(refusalOf(() => parseLayoutLocation(text))).toEqual({
      code: "REFERENCE_INVALID",
      message: `Cannot read reference ${JSON.stringify(text)}: ${why}`,
      details: { remedy: 'write "oci-archive:FILE" or "oci:DIR"' },
    });
  });
});
