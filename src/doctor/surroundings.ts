import { openSync, closeSync } from 'node:fs';
import { CAP_IPC_LOCK, CAP_SYS_PTRACE } from '../abi/prctl.ts';
import { isOpen } from '../host/device-path.ts';
import type { Host } from '../host/host.ts';
import type { Check } from './check.ts';

/** Whom Yama lets a process trace (Documentation/admin-guide/LSM/Yama.rst). */
export function yama(host: Host): Check {
  const name = 'yama';
  const text = host.text('/proc/sys/kernel/yama/ptrace_scope')?.trim();
  if (text === undefined) {
    if (host.has('/proc/sys/kernel')) return { name, level: 'ok', what: 'no Yama' };
    return { name, level: 'warn', what: 'Yama: cannot tell, /proc/sys is not there', remedy: 'mount /proc' };
  }
  const what = `Yama: kernel.yama.ptrace_scope is ${text}`;
  if (text === '0' || text === '1') return { name, level: 'ok', what };
  if (text === '2' && hasCapability(host, CAP_SYS_PTRACE))
    return { name, level: 'ok', what: `${what}, with CAP_SYS_PTRACE` };
  const needs = text === '2' ? 'CAP_SYS_PTRACE, or ' : '';
  const boot = text === '3' ? ' from the next boot on: 3 stays until then' : '';
  return { name, level: 'fail', what, remedy: `needs ${needs}sysctl kernel.yama.ptrace_scope=1${boot}` };
}

/** How much memory may be pinned: a VMM's business, which it needs as without `run`. */
export function memlock(host: Host): Check {
  const name = 'memlock';
  const limit = /^Max locked memory +(\S+)/m.exec(host.text('/proc/self/limits') ?? '')?.[1];
  if (limit === undefined)
    return {
      name,
      level: 'warn',
      what: 'memory lock limit: cannot tell, /proc/self/limits says nothing',
      remedy: 'mount /proc',
    };
  if (limit === 'unlimited') return { name, level: 'ok', what: 'memory lock limit: none' };
  if (hasCapability(host, CAP_IPC_LOCK))
    return { name, level: 'ok', what: `memory lock limit: ${limit} bytes, and CAP_IPC_LOCK` };
  return {
    name,
    level: 'warn',
    what: `memory lock limit: ${limit} bytes`,
    remedy:
      "a VMM with a device of the kernel pins its VM's memory: ulimit -l, LimitMEMLOCK= of systemd, <hard_limit> of libvirt",
  };
}

const BIND = 'bind a device to its VFIO driver (docs/kernel-devices.md)';
const EMULATED = 'run --device works without';

/** The nodes of the kernel's devices. Those that let one user in are not opened. */
export function nodes(host: Host): Check {
  const name = 'vfio';
  if (!host.has('/dev/vfio')) {
    const remedy = `${BIND}, and give a container its nodes; ${EMULATED}`;
    return { name, level: 'warn', what: '/dev/vfio: does not exist', remedy };
  }
  const groups = host.names('/dev/vfio').filter((node) => /^(noiommu-)?\d+$/.test(node));
  const devices = host.names('/dev/vfio/devices').map((node) => `devices/${node}`);
  const all = [...groups, ...devices].map((node) => `/dev/vfio/${node}`);
  if (all.length === 0) {
    return { name, level: 'warn', what: '/dev/vfio: has no device', remedy: `${BIND}; ${EMULATED}` };
  }
  const shared = groups.length > 0 ? '/dev/vfio/vfio' : '/dev/iommu';
  const shut = [...whyShut(host, shared), ...all.filter((node) => !isOpen(host.at(node)))];
  if (shut.length === 0) return { name, level: 'ok', what: `/dev/vfio: open to this user: ${all.join(', ')}` };
  return {
    name,
    level: 'warn',
    what: `/dev/vfio: not open to this user: ${shut.join(', ')}`,
    remedy: 'the user that the VMM runs as needs them: chown, a udev rule, --device of a container',
  };
}

/** A node that many may have open at once, if it does not open. */
function whyShut(host: Host, node: string): string[] {
  try {
    closeSync(openSync(host.at(node), 'r+'));
    return [];
  } catch (error) {
    return [`${node} (${(error as NodeJS.ErrnoException).code})`];
  }
}

/** What shows that this runs in a container, and what that keeps away. What was tried is in lines of its own. */
export function container(host: Host, env: NodeJS.ProcessEnv): Check {
  const name = 'container';
  const status = host.text('/proc/self/status');
  const kind = containerKind(host, env);
  const what = kind === undefined ? 'no sign of a container' : `in a container (${kind})`;
  const seccomp = /^Seccomp:\s*(\d)$/m.exec(status ?? '')?.[1];
  if (seccomp === undefined)
    return { name, level: 'warn', what: `${what}; cannot tell what it is kept from`, remedy: 'mount /proc' };
  const lacks = [
    ...(hasCapability(host, CAP_SYS_PTRACE) ? [] : ['no CAP_SYS_PTRACE']),
    ...(hasCapability(host, CAP_IPC_LOCK) ? [] : ['no CAP_IPC_LOCK']),
    ...(host.has('/dev/vfio') ? [] : ['no /dev/vfio']),
  ];
  const limits = [seccomp === '0' ? 'no seccomp filter' : 'under a seccomp filter', ...lacks].join(', ');
  if (seccomp === '0') return { name, level: 'ok', what: `${what}: ${limits}` };
  return {
    name,
    level: 'warn',
    what: `${what}: ${limits}`,
    remedy: 'what a filter refuses besides what was tried here cannot be told; it holds for the VMM too',
  };
}

function containerKind(host: Host, env: NodeJS.ProcessEnv): string | undefined {
  if (host.has('/.dockerenv')) return 'docker';
  if (host.has('/run/.containerenv')) return 'podman';
  const told = host.text('/run/systemd/container')?.trim() ?? env['container'];
  if (told !== undefined && told !== '') return told;
  return /\b(docker|lxc|kubepods|libpod|containerd)\b/.exec(host.text('/proc/1/cgroup') ?? '')?.[1];
}

function hasCapability(host: Host, capability: number): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(host.text('/proc/self/status') ?? '')?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> BigInt(capability)) & 1n) === 1n;
}
