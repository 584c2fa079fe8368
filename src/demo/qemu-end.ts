import { basename } from 'node:path';
import { v1StateName } from '../v1/states.ts';
import { qemuCommand, type Qemu } from '../vmm/qemu-command.ts';
import { Vm } from '../vmm/vm.ts';
import { machineOf, tracedState } from './qemu.ts';
import { ShimmedVmm, type EndName, type Stage } from './shimmed.ts';

/** One end of the migration: a QEMU under `vfio-shim run`, and the VM in it. */
export interface QemuEnd {
  readonly vmm: ShimmedVmm;
  readonly vm: Vm;
}

/** Starts it and waits until its machine is built. The trace event is QEMU's own word on what it writes into device_state. */
export async function startQemu(stage: Stage, qemu: Qemu, name: EndName, device: string): Promise<QemuEnd> {
  const sockets = stage.workplace.path(name);
  const options = {
    machine: machineOf(qemu),
    incoming: name === 'destination',
    args: ['-trace', 'vfio_migration_set_state'],
  };
  let last: number | undefined;
  const vmm = new ShimmedVmm(stage, {
    name,
    device,
    command: (sysfsdev) => qemuCommand(qemu, sockets, { ...options, vfio: [sysfsdev] }),
    shown: `${basename(qemu.path)} -device vfio-pci,sysfsdev=...,x-enable-migration=on ...`,
    onError: (line) => {
      const state = tracedState(line);
      if (state === undefined) return false;
      if (state !== last) stage.story.step(name, `QEMU wrote device_state ${state}, ${v1StateName(state)}`);
      last = state;
      return true;
    },
  });
  return { vmm, vm: await Vm.attach(vmm.program, sockets) };
}
