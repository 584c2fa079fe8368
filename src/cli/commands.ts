import type { Commands } from './program.ts';

/** Every command, in the order in which they are listed. */
export const commands: Commands = new Map([
  ['run', () => import('./run.ts')],
  ['libvirt-wrapper', () => import('./libvirt-wrapper.ts')],
  ['doctor', () => import('./doctor.ts')],
  ['list', () => import('./list.ts')],
  ['probe', () => import('./probe.ts')],
  ['check', () => import('./check.ts')],
  ['save', () => import('./save.ts')],
  ['restore', () => import('./restore.ts')],
  ['stream', () => import('./stream.ts')],
  ['serve', () => import('./serve.ts')],
  ['proxy', () => import('./proxy.ts')],
  ['trace', () => import('./trace.ts')],
  ['timeline', () => import('./timeline.ts')],
  ['replay', () => import('./replay.ts')],
  ['fsm', () => import('./fsm.ts')],
  ['demo', () => import('./demo.ts')],
]);
