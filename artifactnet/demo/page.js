// The place where images are dropped, pasted or chosen. `element`, `props` and `trigger` are Gradio's.
const input = element.querySelector('input[type=file]');
const drop = element.querySelector('.an-drop');
const note = element.querySelector('.an-note');

const ask = (sent) => {
  note.textContent = '';
  props.value = sent;
  trigger('analyse');
};

const read = (files) => {
  const file = files[0];
  if (!file) return;
  if (file.size > Number(drop.dataset.bytes)) {
    ask({name: file.name, bytes: file.size}); // the answer says that it is too large
    return;
  }
  const reader = new FileReader();
  reader.onload = () => ask({name: file.name, data: reader.result.split(',')[1] ?? ''});
  reader.onerror = () => {
    note.textContent = `${file.name}: your browser cannot read this file.`;
  };
  reader.readAsDataURL(file);
};

input.addEventListener('change', () => {
  read(input.files);
  input.value = ''; // so that the same file can be chosen again
});
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-example]');
  if (button) ask({example: Number(button.dataset.example)});
});

// anywhere on the page, for a file dropped beside the field would replace the page
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  drop.classList.add('an-over');
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) drop.classList.remove('an-over');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  drop.classList.remove('an-over');
  if (event.dataTransfer.files.length) read(event.dataTransfer.files);
  else note.textContent = 'Drop an image file; text and addresses are not fetched.';
});
document.addEventListener('paste', (event) => {
  if (event.clipboardData.files.length) read(event.clipboardData.files);
  else note.textContent = 'There is no image on the clipboard.';
});
