// Packages of any Debian release, through an apt state of its own: without root, and without touching the host's packages.
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { mirrorsOf } from './mirrors.mjs';
import { Failure, run } from './process.mjs';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** apt with package lists of its own, in a directory of its own. */
export class PrivateApt {
  #directory;
  #architecture;
  #suites;
  #say;

  /**
   * @param {string} directory is made
   * @param {{ architecture: string, suites: readonly string[], say: (text: string) => void }} options
   *   `suites`, e.g. `bookworm` and `bookworm-security`, of one release
   */
  constructor(directory, { architecture, suites, say }) {
    this.#directory = directory;
    this.#architecture = architecture;
    this.#suites = suites;
    this.#say = say;
  }

  /** Reads the package lists from the host's mirrors, or from Debian's if those have none. */
  async update() {
    if (!existsSync(KEYRING)) throw new Failure(`${KEYRING} is missing: install the package debian-archive-keyring`);
    for (const name of ['lists/partial', 'archives/partial']) {
      mkdirSync(join(this.#directory, name), { recursive: true });
    }
    writeFileSync(join(this.#directory, 'apt.conf'), configuration(this.#directory, this.#architecture));
    writeFileSync(join(this.#directory, 'status'), '');
    const choices = this.#suites.map(mirrorsOf);
    const attempts = Math.max(...choices.map((mirrors) => mirrors.length));
    /** @type {Failure | undefined} */
    let first;
    for (let attempt = 0; attempt < attempts; attempt++) {
      const sources = this.#suites.map((suite, n) => {
        const uri = choices[n][attempt] ?? choices[n].at(-1);
        this.#say(`reading the package lists of ${suite} from ${uri}`);
        return `deb [target=Packages signed-by=${KEYRING}] ${uri} ${suite} main\n`;
      });
      writeFileSync(join(this.#directory, 'sources.list'), sources.join(''));
      try {
        await this.#apt('apt-get', ['update']);
        return;
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        first ??= error;
      }
    }
    throw first;
  }

  /**
   * Downloads packages and what they depend on; returns the files.
   * @param {readonly string[]} packages
   */
  async downloadWithDependencies(packages) {
    await this.#apt('apt-get', ['install', '--download-only', '--no-install-recommends', ...packages]);
    return debsIn(join(this.#directory, 'archives'));
  }

  /**
   * Downloads just these packages; returns the files.
   * @param {readonly string[]} packages
   */
  async download(packages) {
    const directory = join(this.#directory, 'downloads');
    mkdirSync(directory, { recursive: true });
    await this.#apt('apt-get', ['download', ...packages], directory);
    return debsIn(directory);
  }

  /**
   * The packages that a package depends on directly.
   * @param {string} name
   */
  async dependencies(name) {
    const text = await this.#apt('apt-cache', ['depends', '--important', name]);
    return [...text.matchAll(/^ *\|?Depends: (\S+)$/gm)].map(([, dependency = '']) => dependency);
  }

  #apt(program, args, cwd = this.#directory) {
    const options = ['-c', join(this.#directory, 'apt.conf'), '-q', ...(program === 'apt-get' ? ['-y'] : [])];
    return run(program, [...options, ...args], { cwd, explain });
  }
}

/**
 * Unpacks packages into a directory. A link that it has for a directory, as for /lib, stays one.
 * @param {readonly string[]} debs
 * @param {string} root
 */
export async function unpack(debs, root) {
  const script = 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"';
  for (const deb of debs) await run('bash', ['-o', 'pipefail', '-c', script, 'unpack', deb, root]);
  dropPrivilegeBits(root);
}

/** Packages have set-user-ID programs, which have no business in a cache. */
function dropPrivilegeBits(root) {
  for (const name of readdirSync(root, { recursive: true })) {
    const path = join(root, String(name));
    const { mode } = lstatSync(path);
    if ((mode & 0o170000) === 0o100000 && (mode & 0o6000) !== 0) chmodSync(path, mode & 0o1777);
  }
}

function debsIn(directory) {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.deb'))
    .map((name) => join(directory, name));
}

/** Read after the host's own configuration, whose proxies and passwords stay in force. */
function configuration(directory, architecture) {
  return `
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Default-Release;
APT::Architecture "${architecture}";
APT::Architectures { "${architecture}"; };
APT::Sandbox::User "root"; // apt's own user cannot enter a home directory
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Dir::Cache "${directory}";
Dir::Cache::archives "archives";
Dir::Etc::sourcelist "${directory}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "${directory}";
Dir::State "${directory}";
Dir::State::lists "lists";
Dir::State::status "${directory}/status";
`;
}

/** What went wrong, from what apt printed. */
function explain(output) {
  const lines = output.split('\n').filter((line) => line.trim() !== '');
  const find = (pattern) => lines.find((line) => pattern.test(line))?.replace(/^(E|W|Err:\d+|\s)+:?\s*/, '');
  const unsigned = find(/NO_PUBKEY|missing key|is not signed|no public key/i);
  if (unsigned !== undefined) return `${KEYRING} lacks a key, it needs a newer version: ${unsigned}`;
  const away = find(/could not resolve|failure resolving|(could not|unable to) connect|unreachable|timed out|refused/i);
  if (away !== undefined) return `no network: ${away}`;
  const why = find(/^E: /);
  return why === undefined ? undefined : `apt: ${why}`;
}
