/*
 * How Node is started for keeper and supervisor, which run beside a program that is not theirs, with its rights and in its
 * environment.
 */

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
/** By the version, as process.allowedNodeEnvironmentFlags takes ten milliseconds to say it. */
const canDisableSigusr1 = major > 23 || (major === 23 && minor >= 7) || (major === 22 && minor >= 14);

/**
 * SIGUSR1 opens Node's inspector to whoever may connect to the machine's own addresses. Node 22.14 and later can do without;
 * earlier ones are told to open it at an address that is nobody's (RFC 1112, class E), which fails.
 */
const withoutInspector = canDisableSigusr1 ? '--disable-sigusr1' : '--inspect-port=240.0.0.1:65535';

export const nodeOptions: readonly string[] = ['--no-warnings', withoutInspector];

/** The environment without what would have Node load, open or write something: it is meant for the target. */
export function withoutNodeVariables(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !/^(NODE_|OPENSSL_CONF$|SSL_CERT_)/.test(name)));
}
