// The mirrors of Debian that the host's apt is configured with.
import { existsSync, readFileSync, readdirSync } from 'node:fs';

/** What distinguishes a mirror of Debian in the host's sources from other archives. */
const RELEASE = '(bullseye|bookworm|trixie|forky|duke|sid|(old)*stable|testing|unstable)';
/** An archive: where it is if the host does not say, or old suites are, and how its suites are called. */
const ARCHIVES = {
  debian: {
    usual: ['http://deb.debian.org/debian', 'http://archive.debian.org/debian'],
    suites: new RegExp(`^${RELEASE}$`),
  },
  security: { usual: ['http://deb.debian.org/debian-security'], suites: new RegExp(`^${RELEASE}-security$`) },
};

/**
 * Where a suite may be read from: the host's mirrors of its archive, then Debian's.
 * @param {string} suite
 */
export function mirrorsOf(suite) {
  const { usual, suites } = suite.endsWith('-security') ? ARCHIVES.security : ARCHIVES.debian;
  const uris = hostSources()
    .filter((source) => isOf(source, suites))
    .map(({ uri }) => uri.replace(/\/$/, ''));
  return [...new Set([...uris, ...usual])];
}

function isOf(source, suites) {
  return (
    !source.uri.startsWith('cdrom:') &&
    source.suites.some((name) => suites.test(name)) &&
    source.components.includes('main')
  );
}

function hostSources() {
  const parts = existsSync('/etc/apt/sources.list.d') ? readdirSync('/etc/apt/sources.list.d').toSorted() : [];
  const names = ['sources.list', ...parts.map((name) => `sources.list.d/${name}`)];
  const files = names.filter((name) => /\.(list|sources)$/.test(name)).map((name) => `/etc/apt/${name}`);
  return files.filter(existsSync).flatMap((file) => {
    const text = readFileSync(file, 'utf8').replaceAll(/^#.*\n?/gm, '');
    const sources = file.endsWith('.sources')
      ? text.split(/\n\s*\n/).map(parseStanza)
      : text.split('\n').map(parseLine);
    return sources.filter((source) => source !== undefined);
  });
}

/** `deb [options] uri suite component...` (sources.list(5)). */
function parseLine(line) {
  const [, uri, suite, rest = ''] = /^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)([^#]*)/.exec(line) ?? [];
  return uri === undefined ? undefined : { uri, suites: [suite], components: rest.trim().split(/\s+/) };
}

/** The same in deb822 format. */
function parseStanza(text) {
  const words = (field) =>
    new RegExp(String.raw`^${field}:((?:.*\n[ \t])*.*)`, 'im').exec(text)?.[1].trim().split(/\s+/) ?? [];
  const [uri = ''] = words('URIs');
  const off = /^(no|false|without|off|disable)$/i.test(words('Enabled')[0] ?? 'yes');
  if (uri === '' || off || !words('Types').includes('deb')) return undefined;
  return { uri, suites: words('Suites'), components: words('Components') };
}
