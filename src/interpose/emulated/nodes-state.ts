import type { ContainerState } from '../../vfio/server/container.ts';
import type { IommufdState } from '../../vfio/server/iommufd-state.ts';

/** What is known of the nodes, and committed with their calls. */
export interface NodesState {
  readonly containers: ContainerState[];
  /** For each group, the inode of its container, 0 for none. */
  readonly groups: number[];
  readonly iommufds: IommufdState[];
}

/** The state in an arena: JSON, behind its length. */
export function loadNodes(arena: Uint8Array): NodesState {
  const length = new DataView(arena.buffer, arena.byteOffset).getUint32(0, true);
  return JSON.parse(Buffer.from(arena.subarray(4, 4 + length)).toString()) as NodesState;
}

export function saveNodes(state: NodesState, arena: Uint8Array): void {
  const text = Buffer.from(JSON.stringify(state));
  new DataView(arena.buffer, arena.byteOffset).setUint32(0, text.length, true);
  arena.set(text, 4);
}
