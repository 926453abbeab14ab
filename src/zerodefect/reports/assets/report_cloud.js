
/* ---- the other modality of a part with a point cloud, and its surface ---- */

const OTHERS = { picture: "The picture of the part", depth: "Height of its point cloud", normals: "Normals of its point cloud" };

function showCloud(detail) {
  const { other, surface } = detail.assets, parts = [];
  if (detail.cloud && other) {
    const name = detail.cloud.other;
    parts.push(make("h2", {}, OTHERS[name] ?? name), make("div", { class: "overlays" },
      overlaid({ ...detail, assets: { image: other } }, "other", "as it is"),
      ...(detail.assets.heat ? [overlaid({ ...detail, assets: { image: other, heat: detail.assets.heat } }, "heat", "with the heat map")] : [])));
  }
  if (detail.cloud) {
    const { measured, points } = detail.cloud;
    parts.push(make("h2", {}, "Surface"), make("p", { class: "quiet" }, `${measured.toLocaleString("en")} of ${points.toLocaleString("en")} points were measured; coloured by the anomaly score. Drag to turn it, scroll to come nearer.`));
    if (surface) parts.push(make("iframe", { class: "surface", src: surface, title: "Surface of the part, coloured by the anomaly score" }));
    else parts.push(make("p", {}, "To turn the surface here, install the viewer and write the report again: ", make("code", {}, "pip install 'zerodefect[3d]'")));
  }
  byId("cloud").replaceChildren(...parts);
}
